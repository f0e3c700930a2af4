"""swinssl_train in float64, where rounding is too small for Adam to make more of it: what differs then is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import swinssl.cli.ranks
import swinssl.cli.train
from swinssl.cli.command import command
from swinssl.training import fine_tuning
from swinssl.training.segmentation_task import Inputs, SegmentationTask

initial_network, views = fine_tuning._initial_network, SegmentationTask.views


def doubled(*arguments: Any) -> Any:
    """The network as training starts."""
    network, report = initial_network(*arguments)
    return network.double(), report


def doubled_views(*arguments: Any) -> Inputs:
    """A step's inputs."""
    inputs = views(*arguments)
    return replace(inputs, images=inputs.images.double(), drop_path_draws=inputs.drop_path_draws.double())


fine_tuning._initial_network = doubled
SegmentationTask.views = doubled_views
# Validation reads stored images itself, in float32; without cases there is none.
swinssl.cli.train.start_ranks = lambda entry, gpus: swinssl.cli.ranks.start_ranks("support.in_doubles:main", gpus)
main = command(swinssl.cli.train.train)

if __name__ == "__main__":
    main()
