"""The options of commands that score images against labels."""

import argparse


def add_label_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--labels-file",
        metavar="FILE",
        required=required,
        help="file of labels: lines, JSON, YAML or a table; - for stdin",
    )
    parser.add_argument(
        "--template",
        action="append",
        metavar="TEMPLATE",
        help="text with {} for the label, such as 'a photo of a {}.'; several are averaged",
    )
