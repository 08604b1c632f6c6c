"""Reasons: the closed set of names for why a scene, a patch or a whole job is refused.

`rejected/*.ndjson`, manifests, ledgers and `DataError.reason` hold these names.
`MEANINGS` says for each name what it means and what to do. mypy checks that the code
uses no other name. The spelling is part of the shard contract: do not change it.
"""

from __future__ import annotations

from typing import Literal, TypeGuard

SceneReason = Literal[
    "bad_item",
    "bad_vector",
    "duplicate_scene_id",
    "forbidden_source",
    "in_earlier_span",
    "label_elsewhere",
    "label_id_outside_schema",
    "missing_bands",
    "missing_crs",
    "missing_file",
    "no_label",
    "no_s1_partner",
    "no_s2_partner",
    "no_valid_pixel",
    "not_geocoded",
    "older_baseline",
    "other_label_schema",
    "other_processing_level",
    "polarizations_swapped",
    "s1_not_db",
    "s2_not_dn",
    "s2_not_reflectance",
    "s2_taken",
    "too_small",
    "unknown_band_order",
    "unknown_dn_offset",
    "unlocated",
    "unreadable_raster",
    "weak_label",
    "wrong_crs",
    "wrong_patch_count",
    "wrong_patch_size",
]
"""Why a scene is not used, or why one of its files is refused."""

PatchReason = Literal[
    "cloudy",
    "duplicate_patch",
    "edge_noise",
    "hand_label_in_train",
    "in_buffer",
    "low_quality",
    "misregistered",
    "outside_folds",
    "s1_no_data",
    "s2_no_data",
    "saturated",
    "straddles_splits",
    "unlabeled",
    "weak_label_judged",
]
"""Why a patch of a sound pair of scenes is not kept."""

RequestReason = Literal[
    "connection",
    "no_credentials",
    "not_found",
    "quota_exceeded",
    "quota_exhausted",
    "refused",
    "server_error",
    "timeout",
    "too_large",
    "truncated",
]
"""Why a request to Earth Engine failed."""

CollectReason = Literal[
    "bad_place",
    "duplicate",
    "duplicate_place",
    "folder_in_use",
    "interrupted",
    "no_answer",
    "no_bucket",
    "no_class",
    "no_place",
    "no_room",
    "no_s1",
    "no_s2",
    "orphaned",
    "other_config",
    "s1_invalid",
    "s2_invalid",
    "stopped",
    "task_cancelled",
    "task_failed",
    "time_gap",
    "too_cloudy",
]
"""Why a place gives no pair, or why `sample`, `plan`, `fetch` or `export` stops."""

JobReason = Literal[
    "bad_holdout",
    "bad_input",
    "bad_manifest",
    "bad_metadata",
    "bad_mixer",
    "bad_model",
    "bad_shard",
    "class_absent",
    "empty_catalog",
    "empty_split",
    "encoder_refused",
    "input_changed",
    "missing_output",
    "missing_run",
    "no_common_band",
    "nothing_new",
    "no_map",
    "no_pair",
    "no_patch",
    "no_scene",
    "no_scenes",
    "no_version",
    "not_run",
    "overlap",
    "teacher_refused",
    "too_many_bad_scenes",
    "unfinished_version",
    "version_exists",
    "wrong_kind",
]
"""Why a whole job stops."""

Reason = SceneReason | PatchReason | RequestReason | CollectReason | JobReason
Refusal = tuple[Reason, str]
"""A reason, and one line for a person with the rule and the value that broke it."""

MEANINGS: dict[Reason, str] = {
    # Scenes and their files.
    "bad_item": "The STAC item lacks a field or has a wrong value. Mend the catalog.",
    "bad_vector": "The vector file of labels cannot be read, or a feature of it is unusable."
    " Mend the file.",
    "duplicate_scene_id": "The id is listed more than once. Keep one item per scene.",
    "forbidden_source": "The item or the file points to where nothing may be read, such as"
    " a web server. Copy the raster to a local GeoTIFF and name that.",
    "in_earlier_span": "An earlier span uses the scene. Nothing to do.",
    "label_elsewhere": "The label raster does not overlap the scene. Mend the item.",
    "label_id_outside_schema": "The label has an id that its schema lacks. Name another"
    " schema, or declare the id as no data.",
    "missing_bands": "A band or array is not in the file. Ask for other bands, or mend the item.",
    "missing_crs": "The raster has no coordinate system. Write one into the file.",
    "missing_file": "A file does not exist. Check the path or export it again.",
    "no_label": "The scene has no label. Nothing to do unless it should have one.",
    "no_s1_partner": "No Sentinel-1 scene is paired with it. Export more scenes, or"
    " raise pairing.max_time_gap_hours.",
    "no_s2_partner": "No Sentinel-2 scene is near enough in time and place. Export more"
    " scenes, or raise pairing.max_time_gap_hours.",
    "no_valid_pixel": "All pixels are no data. Drop the scene, or mend its nodata value.",
    "not_geocoded": "The radar image lies in radar geometry. Use a geocoded product,"
    " such as sentinel-1-rtc.",
    "older_baseline": "A newer processing of the same datatake and tile is listed too and"
    " is used. Nothing to do.",
    "other_label_schema": "The label schema cannot be turned into that of the build."
    " Name another label.schema.",
    "other_processing_level": "The scene is L1C and the build takes L2A, or the reverse."
    " Change patch.s2_processing_level if that is wrong.",
    "polarizations_swapped": "VV and VH seem swapped. Correct their order in the item, or"
    " declare terrapair:polarizations_checked.",
    "s1_not_db": "Backscatter is not in dB. Declare terrapair:unit, or convert it.",
    "s2_not_dn": "Reflectance is not in digital numbers. Declare terrapair:unit, or"
    " multiply it by 10000.",
    "s2_not_reflectance": "The declared scale and offset give no reflectance. Correct"
    " raster:scale and raster:offset.",
    "s2_taken": "Its Sentinel-2 scene has nearer passes. Raise pairing.max_s1_per_s2.",
    "too_small": "The pair shares less than one patch. Use a smaller patch.size_px.",
    "unknown_band_order": "The order of the bands is not told. List them in the item.",
    "unknown_dn_offset": "The pixels do not show whether they carry the 2022 offset, or"
    " contradict the catalog. Declare terrapair:dn_offset.",
    "unlocated": "The file has no place on Earth. Export it with its mixer file.",
    "unreadable_raster": "The file is damaged or of an unknown format. Export it again.",
    "weak_label": "The label is weak and weak labels are off. Raise label.weak_weight.",
    "wrong_crs": "The coordinate system contradicts the item, other bands or the"
    " footprint. Correct the item or the file.",
    "wrong_patch_count": "The export has more or fewer patches than its mixer says."
    " Export it again without maskedThreshold.",
    "wrong_patch_size": "A record does not have the expected number of pixels. Export it"
    " again with a square, even kernelSize.",
    # Patches.
    "cloudy": "Too many cloud pixels. Raise quality.max_cloud_fraction to keep more.",
    "duplicate_patch": "A better patch shows the same ground by the same passes.",
    "edge_noise": "Noise of the radar swath's edge. Raise"
    " quality.max_edge_noise_fraction to keep more.",
    "hand_label_in_train": "The label is drawn by hand, and label.weak_only is set.",
    "in_buffer": "Too near to a split that is judged. Lower split.buffer_m to keep more.",
    "low_quality": "The quality score is too low. Lower quality.min_quality.",
    "misregistered": "The two images are shifted. Raise quality.max_offset_px.",
    "outside_folds": "The patch is held out, or its data set declares it as test, so no"
    " fold of a cross-validation takes it. Nothing to do.",
    "s1_no_data": "Too few Sentinel-1 pixels have data. Lower"
    " quality.min_valid_fraction to keep more.",
    "s2_no_data": "Too few Sentinel-2 pixels have data. Lower"
    " quality.min_valid_fraction to keep more.",
    "saturated": "Too many saturated pixels. Raise quality.max_saturated_fraction.",
    "straddles_splits": "The patch reaches into blocks of two splits, or its scenes"
    " declare two. Larger blocks lose fewer patches.",
    "unlabeled": "Too few pixels have a label. Lower label.min_labeled_fraction.",
    "weak_label_judged": "Weak labels are for train only, and the patch is in another split.",
    # Requests to Earth Engine.
    "connection": "Earth Engine could not be reached. The request is sent again.",
    "no_credentials": "Credentials or the project are missing or expired. Run"
    " `earthengine authenticate` and set GOOGLE_CLOUD_PROJECT.",
    "not_found": "Earth Engine does not know what was asked for. Check the name.",
    "quota_exceeded": "Too many requests just now (429). They are sent again, slower.",
    "quota_exhausted": "The compute quota of the month is used up. Wait or raise it.",
    "refused": "Earth Engine refused the request. Read its message.",
    "server_error": "Earth Engine failed (5xx). The request is sent again.",
    "timeout": "Earth Engine did not answer in time. The request is sent again.",
    "too_large": "The request is larger than Earth Engine allows. Ask for less.",
    "truncated": "The answer was cut short. The request is sent again.",
    # Places, fetch and export.
    "bad_place": "A place has a missing or wrong value. Mend the file of places.",
    "duplicate": "Two simulated scenes have one index. Choose another seed.",
    "duplicate_place": "A place or window comes twice. Remove one of them.",
    "folder_in_use": "Another job writes into the folder. Wait for it.",
    "interrupted": "The job was interrupted. Run the same command again to go on.",
    "no_answer": "No request of the pilot was answered. Read its ledger.",
    "no_bucket": "Export needs a bucket. Set export.bucket.",
    "no_class": "The land cover map has no class of its schema here. Use another map.",
    "no_place": "The file holds no place. Check the file.",
    "no_room": "The places do not fit. Ask for fewer, or lower min_distance_km.",
    "no_s1": "No Sentinel-1 scene is there at that time. Widen the window.",
    "no_s2": "No Sentinel-2 scene is there at that time. Widen the window.",
    "orphaned": "The job that started this worker is gone. Start the job again.",
    "other_config": "The folder was begun with other settings. Choose another folder.",
    "s1_invalid": "Too few Sentinel-1 pixels have data. Lower min_valid_fraction.",
    "s2_invalid": "Too few Sentinel-2 pixels have data. Lower min_valid_fraction.",
    "stopped": "The Beam runner ended early. Run the same command again.",
    "task_cancelled": "The export task was cancelled. Run the command with --retry-rejected.",
    "task_failed": "The export task failed. Read its message and retry.",
    "time_gap": "The nearest two scenes are too far apart in time. Raise max_time_gap_hours.",
    "too_cloudy": "The pixels show too much cloud. Raise max_cloud_fraction.",
    # Jobs.
    "bad_holdout": "The file of hold-out polygons is unusable. Mend the GeoJSON.",
    "bad_input": "The input breaks a rule that has no name of its own.",
    "bad_manifest": "The manifest is damaged or was changed. Build the version again.",
    "bad_metadata": "ML Metadata's file is damaged, or of another version. Move it away and"
    " run again.",
    "bad_mixer": "The mixer file lacks a field or has a wrong value. Export it again.",
    "bad_model": "The model is no segmenter, is damaged, or has no such version. Name"
    " another one, or publish it again.",
    "bad_shard": "A shard is damaged or does not match its manifest. Build it again.",
    "class_absent": "A class has no pixel in train or in test. Label more, split anew,"
    " correct the values of the label files, or set label.required_classes.",
    "empty_catalog": "The catalog lists no scene. Check the folder or the query.",
    "empty_split": "No patch falls into a split that is needed. Use smaller blocks,"
    " another split.seed or more data.",
    "encoder_refused": "EncoderProbe refuses the encoder. Read the probe's report.",
    "input_changed": "An input file changed while the build read it. Run the build again.",
    "missing_output": "The last run did not finish that output. Run it again.",
    "missing_run": "The metadata holds no run of the pipeline. Run it first.",
    "nothing_new": "Every scene was built into an earlier span. Add scenes, or wait for new ones.",
    "no_common_band": "Pairs and labels share no band. Build them with the same bands.",
    "no_map": "No scene gave a map. Read `rejected/`.",
    "no_pair": "No pair of scenes gave a patch. Read `rejected/`.",
    "no_patch": "There is no patch to use. Use more data or a larger fraction.",
    "no_scene": "The catalogs list no scene of a sensor that the model needs. Add some.",
    "no_scenes": "A version does not list its scenes. Build that span again.",
    "no_version": "The folder is no version and holds none. Check the path.",
    "not_run": "The runner accepted the job but ran nothing. Check its options.",
    "overlap": "Train patches show ground of eval or test. Leave them out.",
    "teacher_refused": "The teacher of a distillation is refused. Mend the teacher.",
    "too_many_bad_scenes": "More scenes break a rule than quality.max_rejected_fraction"
    " allows. Mend them or raise it.",
    "unfinished_version": "The newest version is not whole. Run its build again.",
    "version_exists": "The version exists and is never overwritten. Name another one.",
    "wrong_kind": "Pairs were given where labels are needed, or the reverse.",
}
"""What each reason means, and what to do."""


def is_reason(text: str) -> TypeGuard[Reason]:
    """Return whether `text`, as read from a file, is one of the reasons."""
    return text in MEANINGS
