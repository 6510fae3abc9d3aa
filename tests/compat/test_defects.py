"""The defects of DALLE-pytorch that were proved by running it, done right. Its number stands beside each.

WHERE names the test of each. Those that concern nothing that Tessera has are in NOT_OURS.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]

WHERE = {
    1: "generate/test_raster.test_drawing_reads_each_position_once",
    2: "models/test_text_to_image.test_cached_decoding_is_recomputation",
    3: "imports/test_golden.test_an_imported_prior_learns_and_is_guided_as_the_original",
    4: "compat/test_models.test_guidance_keeps_the_prompt_in_sight",
    5: "imports/test_golden.test_an_imported_prior_learns_and_is_guided_as_the_original",
    6: "compat/test_models.test_dropping_conditions_leaves_the_batch_alone",
    7: "generate/test_raster.test_top_k_below_one_is_a_share_of_the_image_codes",
    8: "imports/test_golden.test_gumbel_vqgan_from_its_files_draws_no_noise",
    9: "imports/test_golden.test_an_imported_prior_gives_the_originals_numbers",
    10: "imports/test_golden.test_the_faces_state_dict_is_the_originals",
    11: "imports/test_golden.test_openais_dvae_from_its_pickles_without_running_them",
    12: "cli/test_cli.test_train_both_and_generate",
    13: "train/test_loop.test_plateau_halves_and_its_state_survives",
    14: "models/test_saved.test_every_setting_of_a_vae_is_saved",
    15: "models/test_dvae.test_temperature_falls_with_progress_alone",
    16: "train/test_loop.test_the_first_step_has_the_rate_that_was_asked_for",
    17: "nn/test_quantize.test_kl_is_a_batch_mean",
    18: "generate/test_sheet.test_prompts_never_become_paths",
    19: "generate/test_captions.test_the_pipeline_completes_with_any_tokenizer",
    20: "generate/test_captions.test_text_is_continued_as_it_was_trained",
    21: "compat/test_models.test_attention_types_may_be_a_word",
    22: "compat/test_models.test_options_that_did_nothing_do_nothing",
    23: "compat/test_models.test_sparse_attention_runs",
    24: "compat/test_tokenizer.test_the_end_of_text_is_not_decoded",
    25: "compat/test_tokenizer.test_id_zero_is_no_padding",
    26: "compat/test_models.test_ids_beyond_the_vocabulary_are_refused",
    27: "train/test_single.test_low_precision_keeps_float32_weights",
    28: "imports/test_runs.test_an_imported_run_trains_on_with_its_own_text_length",
    29: "train/test_loop.test_three_steps_and_three_more_are_six",
    30: "train/test_loop.test_the_first_checkpoint_comes_before_the_first_step",
    31: "data/test_shards.test_an_epoch_over_a_server_that_drops_connections",
    32: "data/test_folder.test_equal_stems_in_a_second_tree_go_by_folder",
    33: "compat/test_loader.test_unreadable_pictures_and_long_captions_are_named",
    34: "models/test_dvae.test_grey_is_drawn_grey",
    35: "models/test_text_to_image.test_reversible_gradients_exist_in_eval_mode",
    36: "compat/test_models.test_a_vae_without_normalization",
    37: "imports/test_golden.test_the_face_gives_the_originals_numbers",
    39: "compat/test_distributed_utils.test_a_backend_used_too_early_says_so",
    40: "imports/test_runs.test_pickles_that_would_run_something_are_refused",
    41: "compat/test_models.test_narrow_heads_turn",
    42: "models/test_text_to_image.test_joint_logits_never_exist",
    43: "compat/test_models.test_the_judge_sees_the_prompt_after_guidance",
    44: "compat/test_models.test_the_image_weight_may_be_a_fraction",
    45: "train/test_trackers.test_nothing_imports_a_tracker",
}
NOT_OURS = {38: "calls in its README that fail"}


def test_every_defect_is_accounted_for():
    assert sorted([*WHERE, *NOT_OURS]) == list(range(1, 46))
    for place in WHERE.values():
        module, _, name = place.rpartition(".")
        tree = ast.parse((TESTS / f"{module}.py").read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, place
