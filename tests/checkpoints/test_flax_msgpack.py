"""The msgpack index against Flax, which writes and reads these files."""

import msgpack
import numpy as np
import pytest
from flax import serialization
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prompt_tuning.checkpoints import flax_msgpack
from prompt_tuning.checkpoints.errors import CheckpointError
from prompt_tuning.checkpoints.source import Leaf

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "bool")


@st.composite
def arrays(draw):
  dtype = np.dtype(draw(st.sampled_from(DTYPES)))
  shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
  values = draw(st.binary(min_size=0, max_size=64)) or b"\0"
  size = int(np.prod(shape, dtype=int))
  ints = np.resize(np.frombuffer(values, np.uint8) % 2, size)
  return ints.astype(dtype).reshape(shape)


trees = st.recursive(
  st.one_of(arrays(), st.integers(-(2**31), 2**63), st.text(max_size=5)),
  lambda children: st.dictionaries(st.text(max_size=40), children, max_size=20),
  max_leaves=20,
)


def indexed(path, contents: bytes):
  path.write_bytes(contents)
  return flax_msgpack.index(path)


def read_all(node):
  if isinstance(node, dict):
    return {key: read_all(child) for key, child in node.items()}
  return node.read() if isinstance(node, Leaf) else node


def assert_same(ours, theirs):
  if isinstance(theirs, dict):
    assert list(ours) == list(theirs)
    for key in theirs:
      assert_same(ours[key], theirs[key])
  elif isinstance(theirs, np.ndarray):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)
  else:
    assert ours == theirs


@given(trees)
def test_index_reads_what_flax_reads(tmp_path_factory, tree):
  path = tmp_path_factory.mktemp("m") / "file"
  contents = serialization.msgpack_serialize(tree)
  ours = read_all(indexed(path, contents))
  assert_same(ours, serialization.msgpack_restore(contents))


@given(st.data())
def test_boxes_are_numpys_slices(tmp_path_factory, data):
  array = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
  tree = {"a": array}
  path = tmp_path_factory.mktemp("m") / "file"
  leaf = indexed(path, serialization.msgpack_serialize(tree))["a"]
  box = []
  for size in array.shape:
    start = data.draw(st.integers(0, size))
    box.append(slice(start, data.draw(st.integers(start, size))))
  box = tuple(box)
  dtype = data.draw(st.sampled_from((np.dtype(np.float32), np.dtype("f8"))))
  out = np.empty(array[box].shape, dtype)
  leaf.read_into(box, out)
  np.testing.assert_array_equal(out, array[box])


@pytest.mark.parametrize("limit", [4, 12, 100, 236])
def test_chunked_arrays(tmp_path, monkeypatch, limit):
  array = np.arange(60, dtype=np.float32).reshape(5, 12)
  monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", limit)
  contents = serialization.msgpack_serialize({"a": array})
  assert b"__msgpack_chunked_array__" in contents
  leaf = indexed(tmp_path / "file", contents)["a"]
  np.testing.assert_array_equal(leaf.read(), array)
  out = np.empty((2, 5), np.float32)
  leaf.read_into((slice(3, 5), slice(7, 12)), out)
  np.testing.assert_array_equal(out, array[3:5, 7:12])


def test_numpy_scalars_are_leaves(tmp_path):
  contents = serialization.msgpack_serialize({"step": np.int32(5)})
  leaf = indexed(tmp_path / "file", contents)["step"]
  assert (leaf.shape, leaf.dtype.name, int(leaf.read())) == ((), "int32", 5)


def test_bfloat16_under_numpys_name(tmp_path):
  array = np.asarray([1.5, -2], "bfloat16")
  triple = msgpack.packb((array.shape, "V2", array.tobytes()))
  contents = msgpack.packb({"a": msgpack.ExtType(1, triple)})
  leaf = indexed(tmp_path / "file", contents)["a"]
  np.testing.assert_array_equal(leaf.read(), array)


def test_arrays_stay_on_disk_until_asked_for(tmp_path):
  array = np.arange(6, dtype=np.float32)
  contents = serialization.msgpack_serialize({"a": array})
  leaf = indexed(tmp_path / "file", contents)["a"]
  (tmp_path / "file").unlink()
  assert leaf.shape == (6,)
  with pytest.raises(CheckpointError, match="No such file"):
    leaf.read()


def ext(code, *triple):
  return msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb(triple))})


REFUSED = {
  "an object array": ext(1, (1,), "object", b"12345678"),
  "bfloat16 as uint16": ext(1, (1,), "uint16", b"12"),
  "an unknown dtype": ext(1, (1,), "float33", b"1234"),
  "bytes that do not fill the shape": ext(1, (3,), "float32", b"1234"),
  "a huge shape": ext(1, (2**60, 2**60), "float32", b"1234"),
  "a negative shape": ext(1, (-1,), "float32", b"1234"),
  "a complex number": ext(2, 1.0, 2.0),
  "an unknown extension": ext(9, (1,), "float32", b"1234"),
  "no triple": ext(1, (1,)),
  "a number as key": msgpack.packb({1: 2}),
  "one key twice": b"\x82\xa1a\x01\xa1a\x02",
  "a lone blob": msgpack.packb({"a": b"123"}),
  "four billion entries": b"\xdf\xff\xff\xff\xff",
  "a reserved type byte": b"\xc1",
  "bytes after the end": msgpack.packb({"a": 1}) + b"\0",
  "deep nesting": b"\x81\xa1a" * 10_000 + b"\x01",
  "a long string": b"\xdb\x00\x10\x00\x00" + b"x" * 2**20,
  "nothing": b"",
  "text": b"model_checkpoint_path: 3",
}


@pytest.mark.parametrize("contents", REFUSED.values(), ids=REFUSED)
def test_refuses(tmp_path, contents):
  with pytest.raises(CheckpointError, match="msgpack file written by T5X"):
    indexed(tmp_path / "file", contents)


def test_every_truncation_is_refused(tmp_path):
  tree = {"a": np.ones((2, 3), np.float32), "b": {"c": "text", "d": 1.5}}
  contents = serialization.msgpack_serialize(tree)
  for length in range(len(contents)):
    with pytest.raises(CheckpointError):
      indexed(tmp_path / "file", contents[:length])
