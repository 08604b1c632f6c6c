"""Cross-modal InfoNCE on patches and on cells of the feature map, for segmentation.

Input: embeddings and embedded feature maps by view. Output: losses per pair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from models.config import PretrainConfig
from models.dual_encoder import ProjectionHead
from models.objectives import chunks
from models.objectives.contrastive import Multimodal
from models.objectives.global_batch import GlobalBatch
from models.objectives.objective import Outputs, ViewName
from models.training import replicas

MIN_CELL_VALID_FRACTION = 0.5
"""Least share of valid pixels below a cell, in both sensors, for it to count.

Origin: this project.
"""


class Dense(Multimodal):
    """(1 - `dense_weight`) InfoNCE of patches plus `dense_weight` InfoNCE of cells.

    A cell of one sensor must find the same cell of the other sensor among all valid
    cells of all patches. Both sensors share one grid, so no matching is needed. The
    other cells of the own patch stay negatives, whatever `min_negative_km` is: the
    cells of a patch must be told apart. The cell loss of a patch is the mean over its
    valid cells.

    Source: Wang et al. 2021 (DenseCL), arXiv 2011.09157, section 3 (local term, its
    weight 0.5, a head of its own), and Bardes et al. 2022 (VICRegL), arXiv 2210.01571
    (positives by location).

    Attributes:
        local_heads: by sensor, a head from the features [D] of a cell to its unit-norm
            embedding.
    """

    def __init__(self, config: PretrainConfig, features_dim: int, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.local_heads = {
            sensor: ProjectionHead(
                features_dim=features_dim,
                embedding_dim=config.encoder.embedding_dim,
                name=f"{sensor}_local_head",
            )
            for sensor in self.views
        }

    def describe_view(self, view: ViewName, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the embedded cells, and the share of valid pixels below each.

        They are float32 [B, hw, E] and [B, hw].
        """
        features = encoded["features"]  # [B, h, w, D]
        num_patches = tf.shape(features)[0]
        cells = self.local_heads[view](tf.reshape(features, [-1, features.shape[-1]]))
        height, width = tf.shape(features)[1], tf.shape(features)[2]
        # Area means of the mask; the size of the map divides that of the patch.
        mask = encoded["valid_mask"]
        stride = tf.shape(mask)[1] // height
        by_cell = tf.reshape(mask, [num_patches, height, stride, width, stride])
        return {
            f"{view}_cells": tf.reshape(cells, [num_patches, height * width, cells.shape[-1]]),
            f"{view}_valid": tf.reshape(
                tf.reduce_mean(by_cell, axis=[2, 4]), [num_patches, height * width]
            ),
        }

    def chance_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the loss of each pair whose cells are all equal, weighted.

        For the local term the candidates are the valid cells of the candidates.
        """
        valid, local_weight = self._valid_cells(outputs, batch)
        num_cells = replicas.gather(tf.reduce_sum(tf.cast(valid, tf.float32), axis=1))
        num = batch.count_candidates(num_cells, self.config.logits_chunk_size)
        # A patch without any valid cell has no local loss.
        local = tf.math.log(tf.maximum(num, 1.0)) * local_weight
        share = self.config.dense_weight
        return (1.0 - share) * super().chance_losses(outputs, batch) + share * local

    def pair_losses(self, outputs: Outputs, batch: GlobalBatch) -> Any:
        """Return the weighted loss of each pair, float32 [B]; see `Objective`."""
        valid, local_weight = self._valid_cells(outputs, batch)
        local = self._cell_losses(outputs, tf.cast(valid, tf.float32), batch)
        share = self.config.dense_weight
        return (1.0 - share) * super().pair_losses(outputs, batch) + share * local * local_weight

    def _valid_cells(self, outputs: Outputs, batch: GlobalBatch) -> tuple[Any, Any]:
        """Return which cells count, bool [B, c], and the patches' local weights [B]."""
        valid = (
            tf.minimum(outputs["s1_valid"], outputs["s2_valid"]) >= MIN_CELL_VALID_FRACTION
        )  # [B, c]
        # A pair can have valid pixels but no cell that both sensors see. The other
        # pairs then have a higher weight.
        local_weight = batch.weight * tf.cast(tf.reduce_any(valid, axis=1), tf.float32)
        total = replicas.sum_over_replicas(tf.reduce_sum(local_weight))
        return valid, local_weight * tf.math.divide_no_nan(batch.num_pairs, total)

    def _cell_losses(self, outputs: Outputs, valid: Any, batch: GlobalBatch) -> Any:
        """Return the mean loss over each patch's valid cells, float32 [B].

        `valid` float32 [B, c] is 1 for valid cells and 0 for others.
        """
        all_valid = replicas.gather(valid)  # [N, c]
        num_cells = tf.shape(valid)[1]

        def losses(positions: Any, rows: Any, shared: Any) -> Any:
            (own_s1, own_s2, own_valid), (all_s1, all_s2, heat) = (
                rows,
                shared,
            )  # [b, c, E], [N, c, E]
            # [b, c, N, c]: a cell has the weight of its patch, or none if it is not
            # valid. The partner always counts.
            log_weights = batch.log_weights(positions)[:, tf.newaxis, :, tf.newaxis]
            log_weights += tf.where(all_valid > 0.0, 0.0, -math.inf)
            same_cell = tf.eye(num_cells, dtype=tf.bool)[tf.newaxis, :, tf.newaxis, :]
            is_partner = batch.is_own(positions)[:, tf.newaxis, :, tf.newaxis] & same_cell
            log_weights = tf.where(is_partner, 0.0, log_weights)
            label = batch.own(positions)[:, tf.newaxis] * num_cells + tf.range(num_cells)  # [b, c]
            total = tf.zeros_like(own_valid)
            for own, others in ((own_s1, all_s2), (own_s2, all_s1)):
                logits = tf.einsum("bce,nde->bcnd", own, others) / heat + log_weights
                flat = tf.reshape(logits, [tf.size(label), -1])
                cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    tf.reshape(label, [-1]), flat
                )
                total += 0.5 * tf.reshape(cross_entropy, tf.shape(label))
            return tf.reduce_sum(total * own_valid, axis=1) / tf.maximum(
                tf.reduce_sum(own_valid, axis=1), 1.0
            )

        shared = [
            replicas.gather(outputs["s1_cells"]),
            replicas.gather(outputs["s2_cells"]),
            self.temperature.value(),
        ]
        rows = [outputs["s1_cells"], outputs["s2_cells"], valid]
        return chunks.by_row_chunks(losses, rows, shared, self.config.logits_chunk_size)
