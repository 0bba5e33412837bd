"""Former spellings of options still work, and say what the option is called now."""

import pytest

from siglip_jax.cli.main import make_parser


@pytest.mark.parametrize(
    ("argv", "dest", "value", "said"),
    [
        ("plan m --on local --batch 8", "batch_size", 8, "--batch is called --batch-size now"),
        (
            "plan m --on local --text-batch 8",
            "text_batch_size",
            8,
            "--text-batch is called --text-batch-size now",
        ),
        ("plan m --on local --labels 8", "label_count", 8, "--labels is called --label-count now"),
        (
            "embed a/ --out z --error-share 0.5",
            "max_error_share",
            0.5,
            "--error-share is called --max-error-share now",
        ),
        (
            "embed --out z --images a b",
            "images",
            ["a", "b"],
            "--images is called SOURCE, without an option, now",
        ),
        (
            "embed a/ --out z --layer -2",
            "layer",
            -2,
            "--layer is called --features (encoded, or blocks=N) now",
        ),
        (
            "embed a/ --out z --layer final",
            "layer",
            "encoded",
            "--layer is called --features (encoded, or blocks=N) now",
        ),
        (
            "search i --image a.png",
            "image",
            ["a.png"],
            "--image is called QUERY, without an option, now",
        ),
        (
            "verify m --pictures f",
            "pictures",
            "f",
            "--pictures is called IMAGES, without an option, now",
        ),
        (
            "bench --tower images",
            "tower",
            "image",
            "--tower images is called --tower image now",
        ),
    ],
)
def test_a_former_option(capsys, argv, dest, value, said):
    args = make_parser().parse_args(argv.split())
    assert getattr(args, dest) == value
    assert capsys.readouterr() == ("", f"siglip-jax: {said}\n")


@pytest.mark.parametrize("command", ["plan", "embed", "score", "search", "verify"])
def test_a_former_option_is_not_in_the_help(capsys, command):
    with pytest.raises(SystemExit):
        make_parser().parse_args([command, "--help"])
    shown = capsys.readouterr().out
    for former in (
        "--batch ",
        "--text-batch ",
        "--error-share",
        "--image ",
        "--pictures",
        "--layer",
    ):
        assert former not in shown


def test_a_former_option_is_never_suggested(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["verify", "m", "--picture", "f"])
    said = capsys.readouterr().err
    assert "there is no option --picture" in said and "--pictures" not in said
