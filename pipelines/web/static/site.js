// A file that is dropped or pasted is searched for; without this script the form's own file field does the same.
"use strict";

(function () {
  const drop = document.getElementById("drop");
  if (!drop) return;
  const field = document.getElementById("file");
  const button = document.getElementById("send");

  function send(files) {
    const kinds = field.accept.split(",").map((kind) => kind.replace("*", ""));
    const file = Array.from(files).find((one) => kinds.some((kind) => one.type.startsWith(kind)));
    if (!file) return;
    const chosen = new DataTransfer();
    chosen.items.add(file);
    field.files = chosen.files;
    submit();
  }

  // With the button's own method, and with the filters and options of the form.
  function submit() {
    button.form.requestSubmit(button);
  }

  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    send(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => send(event.clipboardData.files));
  field.addEventListener("change", () => field.files.length && submit());
})();
