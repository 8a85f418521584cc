// Points in WebGL: pan by dragging, zoom by wheel or keys, draw around points to list them.
"use strict";

(function () {
  const canvas = document.getElementById("map");
  const state = document.getElementById("state");
  const tip = document.getElementById("tip");
  const lasso = document.querySelector("#lasso polyline");
  const gl = canvas.getContext("webgl", { antialias: true });
  if (!gl) {
    state.textContent = "This browser draws no WebGL, which the map needs.";
    return;
  }
  // Okabe and Ito's colours, which people with any colour vision can tell apart; the last one is for all others.
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b8a800", "#7f4f9b", "#a0522d", "#8a8f98"];
  const view = { x: 0, y: 0, zoom: 0.95 };
  let places = new Float32Array(0);
  let ids = [];
  let drawing = false;
  let path = [];

  const program = gl.createProgram();
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, `attribute vec2 place; attribute float colour; uniform vec2 moved; uniform vec2 scale; uniform float size;
      varying float c; void main() { c = colour; gl_PointSize = size; gl_Position = vec4((place - moved) * scale, 0.0, 1.0); }`],
    [gl.FRAGMENT_SHADER, `precision mediump float; varying float c; uniform vec3 palette[10]; void main() {
      vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard; vec3 found = palette[9];
      for (int i = 0; i < 10; i++) { if (float(i) == floor(c + 0.5)) found = palette[i]; } gl_FragColor = vec4(found * 0.85, 0.85); }`],
  ]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const at = (name) => gl.getUniformLocation(program, name);
  gl.uniform3fv(at("palette"), PALETTE.flatMap((one) => [1, 3, 5].map((i) => parseInt(one.slice(i, i + 2), 16) / 255)));

  function fill(name, numbers, size) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, gl.FLOAT, false, 0, 0);
  }

  function scales() {
    const side = Math.min(canvas.width, canvas.height);
    return [(view.zoom * side) / canvas.width, (view.zoom * side) / canvas.height];
  }

  let wanted = false;
  function draw() {
    if (wanted) return;
    wanted = true;
    requestAnimationFrame(() => {
      wanted = false;
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(at("moved"), view.x, view.y);
      gl.uniform2f(at("scale"), ...scales());
      const size = Math.max(2.5, Math.min(9, 700 / Math.sqrt(ids.length + 1))) * Math.min(2.5, Math.max(1, Math.sqrt(view.zoom)));
      gl.uniform1f(at("size"), size * ratio);
      gl.drawArrays(gl.POINTS, 0, ids.length);
    });
  }

  // From pixels of the canvas to the plane of the points, and back.
  function toPlane(x, y) {
    const [sx, sy] = scales();
    return [((x / canvas.clientWidth) * 2 - 1) / sx + view.x, (1 - (y / canvas.clientHeight) * 2) / sy + view.y];
  }
  function toPixels(i) {
    const [sx, sy] = scales();
    return [
      (((places[2 * i] - view.x) * sx + 1) / 2) * canvas.clientWidth,
      ((1 - (places[2 * i + 1] - view.y) * sy) / 2) * canvas.clientHeight,
    ];
  }
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const before = toPlane(x, y);
    view.zoom = Math.min(4000, Math.max(0.3, view.zoom * factor));
    const after = toPlane(x, y);
    view.x += before[0] - after[0];
    view.y += before[1] - after[1];
    draw();
  }
  function showAll() {
    Object.assign(view, { x: 0, y: 0, zoom: 0.95 });
    draw();
  }
  function nearest(x, y) {
    let best = -1;
    let least = 144;
    for (let i = 0; i < ids.length; i++) {
      const [px, py] = toPixels(i);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    }
    return best;
  }
  function inside(x, y) {
    let odd = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [path[i], path[j]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
    }
    return odd;
  }

  async function describe(chosen) {
    const query = new URLSearchParams(chosen.slice(0, 50).map((i) => ["id", ids[i]]));
    const answer = await fetch(`/map/rows?${query}`);
    return answer.ok ? answer.json() : [];
  }
  async function list(chosen) {
    document.getElementById("chosen").textContent = `${chosen.length} rows${chosen.length > 50 ? ", the first 50 of them" : ""}`;
    const cards = (await describe(chosen)).map((row) => {
      const card = document.createElement("li");
      card.className = "card";
      for (const [kind, text] of [["h3", row.item_id], ["p", row.text]]) {
        const part = document.createElement(kind);
        part.textContent = text;
        card.append(part);
      }
      const link = document.createElement("a");
      link.href = `/?like=${encodeURIComponent(row.id)}`;
      link.textContent = "More like this";
      card.append(link);
      return card;
    });
    document.getElementById("rows").replaceChildren(...cards);
  }

  const position = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  let dragged = null;
  let far = 0;
  canvas.addEventListener("pointerdown", (event) => {
    dragged = position(event);
    far = 0;
    canvas.setPointerCapture(event.pointerId);
    if (drawing) path = [dragged];
  });
  let hover = 0;
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = position(event);
    if (!dragged) {
      clearTimeout(hover);
      hover = setTimeout(async () => {
        const i = nearest(x, y);
        tip.hidden = i < 0;
        if (i < 0) return;
        const [row] = await describe([i]);
        tip.textContent = row ? `${row.item_id}: ${row.text}` : ids[i];
        tip.style.left = `${Math.min(x + 12, Math.max(0, canvas.clientWidth - 260))}px`;
        tip.style.top = `${y + 12}px`;
      }, 120);
      return;
    }
    far += Math.hypot(x - dragged[0], y - dragged[1]);
    if (drawing) {
      path.push([x, y]);
      lasso.setAttribute("points", path.map((one) => one.join(",")).join(" "));
    } else {
      const [from, to] = [toPlane(...dragged), toPlane(x, y)];
      view.x += from[0] - to[0];
      view.y += from[1] - to[1];
      draw();
    }
    dragged = [x, y];
  });
  canvas.addEventListener("pointerup", (event) => {
    const [x, y] = position(event);
    dragged = null;
    if (far < 4) {
      const i = nearest(x, y);
      if (i >= 0) list([i]);
    } else if (drawing) {
      const chosen = [];
      for (let i = 0; i < ids.length; i++) if (inside(...toPixels(i))) chosen.push(i);
      list(chosen);
    }
    path = [];
    lasso.setAttribute("points", "");
  });
  canvas.addEventListener("pointerleave", () => {
    clearTimeout(hover);
    tip.hidden = true;
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 500), ...position(event));
  }, { passive: false });

  const toggle = document.getElementById("draw");
  function setDrawing(on) {
    drawing = on;
    toggle.setAttribute("aria-pressed", String(on));
  }
  toggle.addEventListener("click", () => setDrawing(!drawing));
  document.getElementById("closer").addEventListener("click", () => zoom(1.5));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.5));
  document.getElementById("all").addEventListener("click", showAll);
  canvas.addEventListener("keydown", (event) => {
    const step = 0.2 / view.zoom;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (moves[event.key]) {
      view.x += moves[event.key][0];
      view.y += moves[event.key][1];
      draw();
    } else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") showAll();
    else if (event.key === "l" || event.key === "L") setDrawing(!drawing);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);

  function bytes(text) {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  }
  async function start() {
    const answer = await fetch(`/map/points?color=${encodeURIComponent(canvas.dataset.color)}`);
    const found = await answer.json();
    if (!answer.ok) {
      state.textContent = `${found.error.message}. ${found.error.remedy}`;
      return;
    }
    ids = found.ids;
    places = Float32Array.from(new Uint16Array(bytes(found.places).buffer), (step) => (step / 65535) * 2 - 1);
    fill("place", places, 2);
    fill("colour", Float32Array.from(bytes(found.colours)), 1);
    const shown = ids.length.toLocaleString("en");
    state.textContent = ids.length < found.total ? `${shown} of ${found.total.toLocaleString("en")} rows, a sample.` : `${shown} rows.`;
    document.getElementById("legend").replaceChildren(
      ...found.names.map((name, i) => {
        const line = document.createElement("li");
        const dot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        dot.setAttribute("viewBox", "0 0 10 10");
        const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        for (const [key, value] of Object.entries({ cx: 5, cy: 5, r: 5, fill: PALETTE[Math.min(i, 9)] })) circle.setAttribute(key, value);
        dot.append(circle);
        line.append(dot, ` ${name}`);
        return line;
      }),
    );
    draw();
  }
  start().catch((error) => (state.textContent = `The points could not be loaded: ${error.message}`));
})();
