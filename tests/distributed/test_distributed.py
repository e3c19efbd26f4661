"""Sharded grids in 1, 2 and 4 processes with gloo. Each world starts once for a group of checks."""

from __future__ import annotations

import attention_checks
import bit_checks
import composition_checks
import dropout_checks
import example_checks
import exchange_checks
import flop_checks
import grid_module_checks
import mask_checks
import module_checks
import processes
import pytest

CHECKS = {
    "functions": [
        exchange_checks.exchange_of_halos,
        exchange_checks.one_message_per_pair,
        exchange_checks.ops_are_registered_right,
        attention_checks.attention_of_dtensors,
        bit_checks.the_bits_of_one_process,
        attention_checks.overlapped,
        flop_checks.flops_with_and_without_overlap,
        attention_checks.scale_bias_and_mask,
        mask_checks.masks_of_dtensors,
        mask_checks.masks_of_modules,
        mask_checks.terms_of_shards,
        mask_checks.softmax_of_rows_without_keys,
        dropout_checks.dropout_of_dtensors,
        dropout_checks.seeds_of_ranks_may_differ,
        dropout_checks.dropout_in_modules,
        attention_checks.ranks_without_samples,
        attention_checks.means_of_halves,
        attention_checks.values_of_other_channels,
    ],
    "modules": [
        composition_checks.local_api,
        composition_checks.one_rank_looks,
        composition_checks.strange_strides,
        composition_checks.refused,
        composition_checks.checkpointed,
        composition_checks.saved_and_loaded,
        module_checks.modules_of_dtensors,
        module_checks.tensor_parallel,
        module_checks.plain_parameters_are_refused,
        grid_module_checks.cosine_attention,
        grid_module_checks.axial_attention,
        grid_module_checks.fused_attention,
        grid_module_checks.axial_transformer_over_the_batch,
        grid_module_checks.denoising,
        grid_module_checks.dropout_in_modules_on_shards,
        grid_module_checks.what_modules_refuse,
        composition_checks.data_parallel,
        composition_checks.compiled,
        example_checks.bytes_of_the_model,
        example_checks.losses_of_the_example,
    ],
}


@pytest.mark.parametrize("group", CHECKS)
@pytest.mark.parametrize("world", [1, 2, 4])
def test_sharded_grids(world, group, tmp_path):
    processes.run(world, CHECKS[group], tmp_path)
