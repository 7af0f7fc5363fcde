"""What is said when a run does not hold what was asked for."""

from records import TEMPLATE, checkpoint

from remote_ckpt.location import Location
from remote_ckpt.records import Manifest, Series
from remote_ckpt.run.not_found_messages import no_checkpoint

RUN = Location.parse("s3://bucket/run")
EMPTY = Manifest()


def full():
    series = Series(monitor="val_loss", mode="min").with_checkpoint(checkpoint(3)).with_checkpoint(checkpoint(7))
    return Manifest(series={TEMPLATE: series})


def test_an_empty_run_asks_for_the_url():
    """And tells how to find another."""
    said = no_checkpoint(RUN, EMPTY, 0, "best")
    assert said.startswith("s3://bucket/run holds no checkpoint (best). Is the URL the one")
    assert "remote-ckpt ls" in said


def test_what_waits_in_the_spool_comes_first():
    """It is the likeliest reason."""
    assert "2 wait in this machine's spool: `remote-ckpt recover s3://bucket/run`" in no_checkpoint(RUN, EMPTY, 2, None)


def test_an_epoch_that_is_not_there_is_told_with_those_that_are():
    """Counted from one."""
    said = no_checkpoint(RUN, full(), 0, 4)
    assert said.startswith("s3://bucket/run holds no checkpoint (epoch 5). It holds 2, of epochs 4 to 8;")


def test_a_checkpoint_named_in_place_of_its_run_is_recognised():
    """With what to write instead."""
    said = no_checkpoint(Location.parse("s3://bucket/run/w-03.weights.h5"), full(), 0, "best")
    assert "is one checkpoint of s3://bucket/run. Name the run" in said
    assert "epoch (4, as Keras counts) or id (id3)" in said


def test_another_template_is_told_with_those_there_are():
    """A typo is seen at once."""
    said = no_checkpoint(Location.parse("s3://bucket/run/v-{epoch:02d}.weights.h5"), full(), 0, "best")
    assert said.endswith(f"templates are: {TEMPLATE!r}.")


def test_the_manifest_itself_is_no_run():
    """Its folder is."""
    assert "Name the folder" in no_checkpoint(Location.parse("s3://bucket/run/manifest.json"), EMPTY, 0, "best")


def test_a_template_whose_checkpoints_wait_is_no_typo():
    """They are to be uploaded first."""
    assert "remote-ckpt recover" in no_checkpoint(Location.parse("s3://b/run/v-{epoch}.weights.h5"), full(), 1, None)


def test_a_file_of_this_machine_is_no_run(tmp_path):
    """It is told so, whatever its suffix."""
    for name in ("notes.txt", "mine.weights.h5"):
        (tmp_path / name).write_text("")
        said = no_checkpoint(Location.parse(tmp_path / name), EMPTY, 0, "best")
        assert said.startswith(f"{tmp_path / name} is a file, not a run.")


def test_a_single_checkpoint_is_told_in_the_singular():
    """One epoch is no span."""
    manifest = Manifest(series={TEMPLATE: Series(monitor="m", mode="min").with_checkpoint(checkpoint(3))})
    assert no_checkpoint(RUN, manifest, 0, 8).endswith("It holds 1, of epoch 4; `remote-ckpt ls` lists it.")
