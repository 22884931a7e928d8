"""How a network is judged on the validation films."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from distributed_worker import CPU, IMAGE_SIZE, Films, network

from common.compute import evaluating
from common.inference.run_networks import Predictor
from common.inference.threshold_rules import dice_by_threshold
from common.statistics.auroc import auroc
from common.statistics.overlap import dice

ROWS = np.array([5, 0, 3, 1, 4, 2])  # of these, 0 to 2 are positive


def _network(task: str) -> torch.nn.Module:
    net = network("eff", task)
    torch.nn.init.normal_(net.unet.segmentation_head[0].weight)  # so that maps find something
    return net


@pytest.mark.parametrize("threshold", ["half", "out-of-fold"])
def test_scores_are_those_of_whole_networks(threshold: str) -> None:
    films, net = Films(3, 3), _network("cls")
    found = Predictor(films, IMAGE_SIZE, CPU, batch_size=2, map_threshold=threshold).validation(net, ROWS)
    dices, scores = [], []
    for row in ROWS:
        film = torch.from_numpy(films.film(row, IMAGE_SIZE).astype(np.float32) / 255)[None, None]
        with evaluating(net):
            masks, logit = net(film)
        map_, truth = masks.softmax(1)[0, 1].numpy(), films.mask(row, IMAGE_SIZE)
        scores.append(float(logit.sigmoid()))
        if films.has_mask[row]:
            by_half = dice(map_ > 0.5, truth)
            dices.append(by_half if threshold == "half" else dice_by_threshold(map_, truth))
    assert found.dice == pytest.approx(float(np.max(np.mean(dices, axis=0))), abs=1e-4)
    assert found.dice > 0
    assert found.auroc == auroc(films.has_mask[ROWS], np.array(scores))


@pytest.mark.parametrize(("task", "decoded"), [("cls", [0, 2, 1]), ("seg", [2, 2, 2])])
def test_encoder_runs_once_a_film_and_decoder_for_positives(task: str, decoded: list[int]) -> None:
    rows = np.array([5, 4, 0, 1, 3, 2]) if task == "cls" else np.arange(6)
    films, net, encoded, seen = Films(3 if task == "cls" else 6, 3), _network(task), [], []
    net.unet.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    net.unet.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0][0])))
    Predictor(films, IMAGE_SIZE, CPU, batch_size=2).validation(net, rows)
    assert encoded == [2, 2, 2]
    assert seen == [count for count in decoded if count]
    assert sorted(films.seen) == sorted(rows.tolist())


@pytest.mark.slow
def test_workers_stay_from_epoch_to_epoch_and_change_nothing() -> None:
    net, films = _network("seg"), Films(6, 0)
    predictor = Predictor(films, IMAGE_SIZE, CPU, workers=1, batch_size=2)
    first = predictor.validation(net, np.arange(6))
    (loader,) = predictor._validation.values()
    workers = [worker.pid for worker in loader._iterator._workers]
    assert predictor.validation(net, np.arange(6)) == first
    assert [worker.pid for worker in loader._iterator._workers] == workers
    assert Predictor(films, IMAGE_SIZE, CPU, batch_size=2).validation(net, np.arange(6)) == first
