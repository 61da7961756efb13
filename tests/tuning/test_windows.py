"""Chunks by their literal row numbers."""

from __future__ import annotations

import numpy as np

from tuning.windows import gather, make_chunks

STARTS = np.array([0, 10, 15])


def test_literal_chunks_of_two_symbols():
    chunks = make_chunks(STARTS, np.array([4, 5, 6, 7, 8, 12]), warm_up=2, body=3)
    assert chunks.rows.tolist() == [[2, 3, 4, 5, 6], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert chunks.counts.astype(int).tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 0, 1, 0, 0]]


def test_a_chunk_never_reaches_into_another_symbol():
    chunks = make_chunks(STARTS, np.array([10, 14]), warm_up=2, body=3)
    assert chunks.rows.tolist() == [[-1, -1, 10, 11], [11, 12, 13, 14]]


def test_every_wanted_row_counts_once():
    rng = np.random.default_rng(2)
    starts = np.array([0, 400, 430, 1000])
    wanted = np.sort(rng.choice(1000, 500, replace=False))
    chunks = make_chunks(starts, wanted, warm_up=16, body=32)
    assert np.sort(chunks.rows[chunks.counts]).tolist() == wanted.tolist()


def test_serving_asks_for_one_row_and_computes_nothing_after_it():
    chunks = make_chunks(STARTS, np.array([9, 14]), warm_up=4, body=100)
    assert chunks.rows.tolist() == [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]
    assert chunks.counts[:, -1].all()


def test_padding_is_zero_and_the_table_is_left_alone():
    table = np.ones((3, 2), np.float32)
    made = gather(table, np.array([[-1, 0, 2]]))
    assert made[0].tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    assert (table == 1.0).all()


def test_nothing_wanted_is_no_chunk():
    assert make_chunks(STARTS, np.array([], int), 2, 3).rows.shape == (0, 5)
