"""Weights files written over a template are the same files; files that are not safe to load are refused."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import ml_dtypes
import numpy as np
import pytest

from remote_ckpt.errors import CorruptCheckpointError
from remote_ckpt.weights_file import Dataset, FileTemplate, TemplateWriter, check, check_keras_archive

RNG = np.random.default_rng(0)


def arrays(scale: int = 1) -> dict[str, np.ndarray]:
    return {
        "layers/a/vars/0": (RNG.random((7, 5)) * scale).astype("float32"),
        "layers/a/vars/1": RNG.integers(0, 9, 3 * scale),
        "vars/half": RNG.random(4).astype("float16"),
        "vars/brain": RNG.random(4).astype(ml_dtypes.bfloat16),
        "vars/eighth": RNG.random(4).astype(ml_dtypes.float8_e4m3fn),
        "vars/flags": RNG.random(6) > 0.5,
        "vars/complex": (RNG.random(3) + 1j * RNG.random(3)).astype("complex64"),
        "vars/scalar": np.float64(RNG.random()) * np.ones(()),
        "vars/empty": np.zeros((0, 4), "float32"),
    }


def write_plainly(path: Path, values: dict[str, np.ndarray], **options: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file.create_dataset(name, data=value, **options)
            file[name].parent.attrs["name"] = "a name"


def described(values: dict[str, np.ndarray]) -> list[Dataset]:
    return [Dataset(name, value.shape, value.dtype.name) for name, value in values.items()]


class TestTemplate:
    def test_a_file_written_over_it_is_the_file_h5py_writes(self, tmp_path: Path) -> None:
        first, second = arrays(), arrays()
        write_plainly(tmp_path / "first", first)
        write_plainly(tmp_path / "second", second)
        template = FileTemplate.learn(tmp_path / "first", described(first))
        assert template is not None
        template.write(tmp_path / "ours", list(second.values()).__getitem__)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "second").read_bytes()

    def test_it_replaces_what_was_there(self, tmp_path: Path) -> None:
        values = arrays()
        write_plainly(tmp_path / "first", values)
        template = FileTemplate.learn(tmp_path / "first", described(values))
        assert template is not None
        (tmp_path / "ours").write_bytes(b"x" * 1_000_000)
        template.write(tmp_path / "ours", list(values.values()).__getitem__)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "first").read_bytes()

    def test_arrays_that_are_not_contiguous(self, tmp_path: Path) -> None:
        first, second = {"x": np.zeros((30, 40))}, {"x": RNG.random((40, 30)).T}
        write_plainly(tmp_path / "first", first)
        write_plainly(tmp_path / "second", second)
        template = FileTemplate.learn(tmp_path / "first", described(first))
        assert template is not None
        template.write(tmp_path / "ours", lambda _: second["x"])
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "second").read_bytes()

    def test_many_small_tensors_and_some_large_ones(self, tmp_path: Path) -> None:
        def many() -> dict[str, np.ndarray]:
            sizes = [*([3] * 1500), 3_000_000, 5, 2_000_000]
            return {f"g/{i}": RNG.random(size) for i, size in enumerate(sizes)}

        first, second = many(), many()
        write_plainly(tmp_path / "first", first)
        write_plainly(tmp_path / "second", second)
        template = FileTemplate.learn(tmp_path / "first", described(first))
        assert template is not None
        template.write(tmp_path / "ours", list(second.values()).__getitem__)
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "second").read_bytes()

    @pytest.mark.parametrize(
        "options",
        [{"chunks": (1, 5)}, {"compression": "gzip"}, {"shuffle": True}, {"maxshape": (None, 5)}],
    )
    def test_data_that_is_not_one_run_of_bytes_has_no_template(self, tmp_path: Path, options: dict[str, Any]) -> None:
        values = {"x": np.ones((7, 5))}
        write_plainly(tmp_path / "file", values, **options)
        assert FileTemplate.learn(tmp_path / "file", described(values)) is None

    @pytest.mark.parametrize("value", [np.array([b"abc"]), np.array(["abc"], dtype=object)])
    def test_strings_have_no_template(self, tmp_path: Path, value: np.ndarray) -> None:
        write_plainly(tmp_path / "file", {"x": value})
        assert FileTemplate.learn(tmp_path / "file", described({"x": value})) is None

    def test_big_endian_numbers_have_no_template(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "file", "w") as file:
            file.create_dataset("x", data=np.ones(3), dtype=">f8")
        template = FileTemplate.learn(tmp_path / "file", [Dataset("x", (3,), "float64")])
        assert template is None

    def test_data_of_another_size_is_refused(self, tmp_path: Path) -> None:
        values = {"x": np.ones(3), "y": np.ones(3)}
        write_plainly(tmp_path / "file", values)
        template = FileTemplate.learn(tmp_path / "file", described(values))
        assert template is not None
        with pytest.raises(ValueError, match="does not fit"):
            template.write(tmp_path / "ours", lambda _: np.ones(2))

    def test_memory_holds_one_tensor_at_a_time(self, tmp_path: Path) -> None:
        megabytes = 16
        values = {f"x{i}": np.zeros((megabytes << 20) // 8) for i in range(8)}
        write_plainly(tmp_path / "file", values)
        template = FileTemplate.learn(tmp_path / "file", described(values))
        assert template is not None
        del values
        tracemalloc.start()
        template.write(tmp_path / "ours", lambda _: np.ones((megabytes << 20) // 8))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.5 * (megabytes << 20)


class PlainLayout(NamedTuple):
    key: Hashable
    datasets: list[Dataset] | None
    nbytes: int = 0


class TestTemplateWriter:
    @staticmethod
    def write(writer: TemplateWriter, path: Path, layout: PlainLayout, values: dict[str, np.ndarray]) -> bool:
        """Write; return whether the slow way was taken."""
        slow = []

        def write_first(path: Path, take: Callable[[int], np.ndarray]) -> None:
            slow.append(path)
            write_plainly(path, {name: take(i) for i, name in enumerate(values)})

        writer.write(path, layout, list(values.values()).__getitem__, write_first)
        write_plainly(path.with_suffix(".expected"), values)
        assert path.read_bytes() == path.with_suffix(".expected").read_bytes()
        return bool(slow)

    def test_only_the_first_file_of_a_layout_is_written_the_slow_way(self, tmp_path: Path) -> None:
        writer = TemplateWriter()
        small, large = arrays(1), arrays(2)
        small_layout, large_layout = PlainLayout("s", described(small)), PlainLayout("l", described(large))
        path = tmp_path / "file"
        assert self.write(writer, path, small_layout, small)
        assert not self.write(writer, path, small_layout, arrays(1))
        assert self.write(writer, path, large_layout, large)
        assert not self.write(writer, path, large_layout, arrays(2))

    def test_a_layout_without_template_goes_the_slow_way_each_time(self, tmp_path: Path) -> None:
        writer = TemplateWriter()
        values = {"x": np.array([b"abc"])}
        for datasets in (None, described(values)):
            layout = PlainLayout(str(datasets), datasets)
            assert self.write(writer, tmp_path / "file", layout, values)
            assert self.write(writer, tmp_path / "file", layout, values)

    def test_a_failed_first_write_teaches_nothing(self, tmp_path: Path) -> None:
        writer = TemplateWriter()
        values = {"x": np.ones(3)}
        layout = PlainLayout("x", described(values))

        def fail(path: Path, take: Callable[[int], np.ndarray]) -> None:
            raise OSError("no space left")

        with pytest.raises(OSError, match="no space"):
            writer.write(tmp_path / "file", layout, list(values.values()).__getitem__, fail)
        assert self.write(writer, tmp_path / "file", layout, values)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.weights.h5"
    write_plainly(path, arrays())
    return path


class TestCheck:
    @staticmethod
    def refused(path: Path, match: str, **options: Any) -> None:
        with pytest.raises(CorruptCheckpointError, match=match) as caught:
            check(path, **options)
        assert str(path) in str(caught.value)

    def test_ordinary_files_pass(self, good: Path) -> None:
        check(good)

    @pytest.mark.parametrize(
        "options", [{"chunks": (10, 10)}, {"compression": "gzip"}, {"shuffle": True}, {"fletcher32": True}]
    )
    def test_chunks_and_compression(self, tmp_path: Path, options: dict[str, Any]) -> None:
        """Keras writes neither, and the HDF5 library can be made to crash by them."""
        write_plainly(tmp_path / "file", {"x": RNG.random((100, 100))}, **options)
        self.refused(tmp_path / "file", "data in chunks")

    def test_what_is_not_hdf5(self, tmp_path: Path) -> None:
        for content in (b"", b"PK\x03\x04", b"<html>404</html>"):
            (tmp_path / "file").write_bytes(content)
            self.refused(tmp_path / "file", "not an HDF5 file")

    def test_a_missing_file_is_not_called_damaged(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            check(tmp_path / "nothing")

    @pytest.mark.parametrize("keep", [0.99, 0.5, 0.01])
    def test_truncated(self, good: Path, keep: float) -> None:
        data = good.read_bytes()
        good.write_bytes(data[: int(len(data) * keep)])
        self.refused(good, "truncated")

    @pytest.mark.parametrize("link", [h5py.SoftLink("/layers"), h5py.ExternalLink("/etc/passwd", "/x")])
    def test_soft_and_external_links(self, good: Path, link: Any) -> None:
        with h5py.File(good, "a") as file:
            file["layers/link"] = link
        self.refused(good, "soft or external link, at '/layers → link'")

    def test_a_loop_of_hard_links(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["layers/a/up"] = file["layers"]
        self.refused(good, "two names")

    def test_external_storage(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file.create_dataset("stolen", (4,), "u1", external=[("/etc/passwd", 0, 4)])
        self.refused(good, "data that lies in other files, at '/stolen'")

    def test_virtual_datasets(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            layout = h5py.VirtualLayout((4,), "f4")
            layout[:] = h5py.VirtualSource("/somewhere/else.h5", "x", (4,))
            file.create_virtual_dataset("virtual", layout)
        self.refused(good, "data that lies in other files, at '/virtual'")

    def test_filters_that_need_a_plugin(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((4,))
            plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((4,))
            h5py.h5d.create(file.id, b"zstd", h5py.h5t.NATIVE_FLOAT, space, plist)
        self.refused(good, "data in chunks")

    def test_a_user_block(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "file", "w", userblock_size=512) as file:
            file["x"] = [1.0]
        self.refused(tmp_path / "file", "not an HDF5 file")

    def test_a_shape_without_data(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file.create_dataset("bomb", (1 << 22,), "f4")
        self.refused(good, "with only 0 bytes of data, at '/bomb'")

    def test_a_huge_shape_without_data(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file.create_dataset("bomb", (1 << 40,), "f4")
        self.refused(good, "more than 67108864 bytes in memory")

    def test_an_attribute_of_very_many_texts(self, good: Path) -> None:
        """16 bytes each in the file, and an object of Python each in memory."""
        with h5py.File(good, "a") as file:
            file.attrs.create("bomb", shape=(1000,), dtype=h5py.string_dtype(), data=["x"] * 1000)
        check(good)
        self.refused(good, "bytes in memory", max_bytes=400_000)

    def test_a_heap_in_which_the_library_would_walk_forever(self, good: Path) -> None:
        """An object of no length in a heap of texts, one of which a loader reads."""
        with h5py.File(good, "a") as file:
            file["layers/a/vars/0"].attrs["dtype"] = "bfloat16"
        check(good)
        data = good.read_bytes()
        heap = data.index(b"GCOL")
        for damage in (bytes(16), b"\x01" + bytes(7) + b"\xff" * 8):
            good.write_bytes(data[: heap + 16] + damage + data[heap + 32 :])
            self.refused(good, "heap of texts")

    def test_a_text_that_says_it_is_huge(self, good: Path) -> None:
        """The library would allocate what it says."""
        with h5py.File(good, "a") as file:
            file["layers/a/vars/0"].attrs["dtype"] = "bfloat16"
        data = good.read_bytes()
        at = data.index(b"dtype\0") + 8 + 24 + 8
        assert data[at : at + 4] == struct.pack("<L", len("bfloat16"))
        good.write_bytes(data[:at] + struct.pack("<L", 3 << 30) + data[at + 4 :])
        self.refused(good, "a text")

    def test_a_dataset_of_texts(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["texts"] = ["a", "b"]
        self.refused(good, "a dataset of texts")

    def test_a_number_that_numpy_has_no_type_for(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            kind = h5py.h5t.IEEE_F64LE.copy()
            kind.set_fields(63, 41, 22, 0, 41)
            h5py.h5d.create(file.id, b"odd", kind, h5py.h5s.create_simple((1,))).write(
                h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(1), kind
            )
        self.refused(good, "precision|neither")

    def test_max_bytes(self, good: Path) -> None:
        self.refused(good, "more than 100 bytes", max_bytes=100)

    def test_overlapping_datasets(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_plainly(path, {"x": np.ones(1000), "y": np.ones(1000)})
        with h5py.File(path, "r") as file:
            x, y = file["x"].id.get_offset(), file["y"].id.get_offset()
        data = path.read_bytes()
        assert data.count(struct.pack("<Q", y)) == 1
        path.write_bytes(data.replace(struct.pack("<Q", y), struct.pack("<Q", x)))
        self.refused(path, "overlap")

    def test_data_past_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_plainly(path, {"x": np.ones(1000)})
        with h5py.File(path, "r") as file:
            offset = file["x"].id.get_offset()
        data = path.read_bytes()
        path.write_bytes(data.replace(struct.pack("<Q", offset), struct.pack("<Q", offset + 5000)))
        self.refused(path, "past the end|damaged")

    @pytest.mark.parametrize("dtype", [h5py.ref_dtype, h5py.vlen_dtype("f4"), [("a", "f4"), ("b", "f4"), ("c", "i4")]])
    def test_types_that_no_weight_has(self, good: Path, dtype: Any) -> None:
        with h5py.File(good, "a") as file:
            file.create_dataset("odd", (3,), dtype)
        self.refused(good, "neither number")

    def test_opaque_types_that_name_a_python_type(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            kind = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
            kind.set_tag(b"NUMPY:|O8")
            h5py.h5d.create(file.id, b"object", kind, h5py.h5s.create_simple((1,)))
        self.refused(good, "neither number")

    def test_committed_types(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["type"] = np.dtype("f4")
        self.refused(good, "neither a group nor a dataset")

    def test_null_shapes(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["null"] = h5py.Empty("f4")
        self.refused(good, "without a shape")

    def test_too_deep(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file.create_group("/".join("x" * 1_002))
        self.refused(good, "levels")

    def test_forty_one_nested_models_are_not_too_deep(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["/".join("x" * 84)] = np.zeros(1)
        check(good)

    @pytest.mark.slow
    def test_a_hundred_thousand_arrays_are_not_too_many(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "many.weights.h5", "w") as file:
            group = file.create_group("vars")
            for number in range(101_000):
                group[str(number)] = np.float32(number)
        check(tmp_path / "many.weights.h5")

    def test_too_many_objects(self, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("remote_ckpt.weights_file._check.MAX_OBJECTS", 50)
        with h5py.File(good, "a") as file:
            for i in range(60):
                file.create_group(f"many/{i}")
        self.refused(good, "more than 50 objects")

    def test_names_that_are_not_text(self, good: Path) -> None:
        with h5py.File(good, "a") as file:
            h5py.h5g.create(file.id, b"\xff\xfe")
        check(good)

    @pytest.mark.parametrize("seed", range(40))
    def test_flipped_bytes_never_crash_it(self, good: Path, seed: int) -> None:
        """Whatever the damage: it passes (data only) or is refused, by our own error."""
        rng = np.random.default_rng(seed)
        data = bytearray(good.read_bytes())
        for position in rng.integers(0, len(data), 20):
            data[position] = rng.integers(256)
        good.write_bytes(data)
        try:
            check(good)
        except CorruptCheckpointError as error:
            assert str(good) in str(error)  # noqa: PT017

    def test_nothing_is_read_or_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        write_plainly(path, {"x": np.ones(8 << 20)})
        before = path.stat().st_mtime_ns
        tracemalloc.start()
        check(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20
        assert path.stat().st_mtime_ns == before


class TestArchive:
    @pytest.fixture
    def archive(self, tmp_path: Path, good: Path) -> Callable[..., Path]:
        """Write an archive with the members Keras writes; arguments add to, replace or (None) drop them."""

        def write(changes: dict[str, bytes | None] | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
            members: dict[str, bytes | None] = {
                "metadata.json": b"{}",
                "config.json": b"{}",
                "model.weights.h5": good.read_bytes(),
                **(changes or {}),
            }
            path = tmp_path / "model.keras"
            with zipfile.ZipFile(path, "w", compression) as file:
                for name, content in members.items():
                    if content is not None:
                        file.writestr(name, content)
            return path

        return write

    @staticmethod
    def refused(path: Path, match: str, **options: Any) -> None:
        with pytest.raises(CorruptCheckpointError, match=match) as caught:
            check_keras_archive(path, **options)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_ordinary_archives_pass(self, archive: Callable[..., Path], compression: int) -> None:
        check_keras_archive(archive({"assets/vocabulary.txt": b"one"}, compression))

    def test_what_is_not_an_archive(self, good: Path) -> None:
        self.refused(good, "not a .keras archive")

    def test_truncated(self, archive: Callable[..., Path]) -> None:
        path = archive()
        path.write_bytes(path.read_bytes()[:-50])
        self.refused(path, "archive")

    @pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
    def test_a_missing_member(self, archive: Callable[..., Path], name: str) -> None:
        self.refused(archive({name: None}), f"{name} is missing")

    @pytest.mark.parametrize("name", ["../evil", "/evil", "assets/../../evil", "a\\b", "C:evil", "a\x07b", "a/../b"])
    def test_names_that_leave_the_folder(self, archive: Callable[..., Path], name: str) -> None:
        self.refused(archive({name: b""}), "the member name")

    def test_two_members_with_one_name(self, archive: Callable[..., Path]) -> None:
        path = archive()
        with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("config.json", b"{}")
        self.refused(path, "one name")

    def test_links(self, archive: Callable[..., Path]) -> None:
        path = archive()
        with zipfile.ZipFile(path, "a") as file:
            link = zipfile.ZipInfo("assets/link")
            link.external_attr = 0o120777 << 16
            file.writestr(link, "/etc/passwd")
        self.refused(path, "a link")

    def test_bombs(self, archive: Callable[..., Path]) -> None:
        path = archive({"assets/zeros": b"\0" * (100 << 20)}, zipfile.ZIP_DEFLATED)
        self.refused(path, "members of")
        check_keras_archive(path, max_bytes=1 << 30)

    def test_other_compressions(self, archive: Callable[..., Path]) -> None:
        self.refused(archive({}, zipfile.ZIP_LZMA), "compression method")

    def test_unsafe_weights_inside(self, archive: Callable[..., Path], good: Path) -> None:
        with h5py.File(good, "a") as file:
            file["link"] = h5py.ExternalLink("/etc/passwd", "/x")
        for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self.refused(archive({}, compression), "soft or external link")

    def test_weights_that_are_not_hdf5(self, archive: Callable[..., Path]) -> None:
        self.refused(archive({"model.weights.h5": b"junk" * 100}), "damaged or truncated HDF5")

    def test_sizes_that_lie(self, archive: Callable[..., Path]) -> None:
        path = archive({}, zipfile.ZIP_DEFLATED)
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            size = file.getinfo("model.weights.h5").file_size
        path.write_bytes(data.replace(struct.pack("<L", size), struct.pack("<L", size // 2)))
        self.refused(path, "damaged|truncated")

    def test_overlapping_members(self, archive: Callable[..., Path]) -> None:
        """Many directory entries for one run of compressed bytes: the bomb that no single ratio shows."""
        path = archive({f"assets/{i}": os.urandom(2000) for i in range(30)})
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            size = struct.pack("<LL", 2000, 2000)
            start = file.start_dir
        path.write_bytes(data[:start] + data[start:].replace(size, struct.pack("<LL", 60_000, 60_000)))
        self.refused(path, "overlap")

    @pytest.mark.parametrize("located", [0, 1 << 40])
    def test_a_large_end_record_is_held_to_the_limits_too(self, archive: Callable[..., Path], located: int) -> None:
        """zipfile believes a zip64 record wherever one stands before its locator, whatever the small record says."""
        path = archive()
        data = path.read_bytes()
        end = data.rindex(b"PK\x05\x06")
        start = struct.unpack_from("<L", data, end + 16)[0]
        large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1 << 40, 1 << 40, 1 << 40, start)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, located or end, 1)
        path.write_bytes(data[:end] + large + locator + data[end:])
        self.refused(path, "members in a directory of")

    def test_an_honest_large_end_record_passes(self, archive: Callable[..., Path]) -> None:
        """Archives above 4 GiB have one."""
        path = archive()
        data = path.read_bytes()
        end = data.rindex(b"PK\x05\x06")
        count, length, start = struct.unpack_from("<10xHLL", data, end)
        large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
        path.write_bytes(data[:end] + large + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1) + data[end:])
        check_keras_archive(path)

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_mutated_archive_is_refused_by_our_error_or_passes(
        self, archive: Callable[..., Path], compression: int
    ) -> None:
        """Never by an error of zipfile, zlib or struct."""
        path = archive({}, compression)
        data, chance = path.read_bytes(), random.Random(7)
        for _ in range(600):
            mutated = bytearray(data)
            for _ in range(chance.choice((1, 2, 8))):
                near = chance.choice((len(mutated), 400))
                mutated[-1 - chance.randrange(near)] = chance.randrange(256)
            path.write_bytes(mutated)
            with contextlib.suppress(CorruptCheckpointError):
                check_keras_archive(path)
