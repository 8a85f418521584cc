"""A search on the command line imports neither pandas nor scipy nor requests, and pymilvus still knows all of them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest


def printed(code: str) -> object:
    """What a fresh process prints as JSON."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


OWN = """
import json, sys
from transforms.support import process
process.take()
from transforms.milvus.client_import import client_class
client = client_class()
"""
LEFT_OUT = ("pandas", "requests", "scipy.sparse")


def test_the_own_process_imports_pymilvus_without_them() -> None:
    code = f"{OWN}\nprint(json.dumps([client.__name__, [name for name in {LEFT_OUT} if name in sys.modules]]))"
    assert printed(code) == ["MilvusClient", []]


def test_a_search_uses_none_of_them(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("lite")
    code = f"""{OWN}
from transforms.support.arrow_import import import_arrow
import_arrow()
from pymilvus import MilvusClient
served = MilvusClient({str(folder / "milvus.db")!r})
served.create_collection("rows", dimension=4)
served.insert("rows", [{{"id": n, "vector": [n, 1.0, 0.0, 0.0]}} for n in range(5)])
hits = served.search("rows", data=[[4.0, 1.0, 0.0, 0.0]], limit=1)[0]
served.close()
print(json.dumps([hits[0]["id"], [name for name in {LEFT_OUT} if name in sys.modules]]))
"""
    assert printed(code) == [4, []]


def test_a_data_frame_is_known_once_pandas_is_loaded() -> None:
    code = f"""{OWN}
from pymilvus.orm import schema
before = schema.is_valid_insert_data("text")
import pandas
frame = pandas.DataFrame({{"id": [1, 2]}})
print(json.dumps([before, schema.is_valid_insert_data(frame), schema.is_valid_insert_data("text"),
                  schema.is_list_like([1]), schema.is_scalar([1]), type(pandas).__name__]))
"""
    assert printed(code) == [False, True, False, True, False, "module"]


def test_pymilvus_gets_pandas_and_requests_where_it_uses_them() -> None:
    code = f"""{OWN}
from pymilvus.orm import types
from pymilvus.client import global_topology
kind = types.infer_dtype_bydata([1.0, 2.0]).name
print(json.dumps([kind, global_topology.requests.exceptions.RequestException.__module__,
                  "pandas" in sys.modules, "requests" in sys.modules]))
"""
    assert printed(code) == ["FLOAT_VECTOR", "requests.exceptions", True, True]


def test_other_modules_get_the_real_pandas_meanwhile() -> None:
    """Another thread may import it while pymilvus is imported."""
    code = f"""{OWN.replace("client = client_class()", "")}
from transforms.milvus import client_import
with client_import._later():
    import pandas
    frame = pandas.DataFrame({{"id": [1]}})
    from pandas.core.frame import DataFrame
print(json.dumps([isinstance(frame, DataFrame), sys.modules["pandas"].DataFrame is DataFrame]))
"""
    assert printed(code) == [True, True]


def test_a_program_that_uses_vecbeam_imports_as_python_does() -> None:
    code = OWN.replace("process.take()", "") + "print(json.dumps('pandas' in sys.modules))"
    assert printed(code) is True


def test_arrow_finds_pandas_when_a_method_needs_it() -> None:
    code = """
import json, sys
from transforms.support.arrow_import import import_arrow
import_arrow()
import pyarrow as pa
table = pa.table({"id": pa.array([1, 2])})
before = "pandas" in sys.modules
frame = table.to_pandas()
print(json.dumps([before, len(frame), pa.Table.from_pandas(frame).to_pylist() == table.to_pylist()]))
"""
    assert printed(code) == [False, 2, True]
