"""Which of onnxruntime's optimiser passes changes what a model computes.

>>> guilty_passes(lambda without: apart(run(model, without)), 0.0113)
['QDQSelectorActionTransformer']

The passes have names and can be left out of a session, one or many. Not all versions of onnxruntime
have all of these; it takes no notice of a name that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["guilty_passes"]

PASSES = (
    "AttentionFusion", "Avx2WeightS8ToU8Transformer", "BiasDropoutFusion", "BiasGeluFusion",
    "BiasSkipLayerNormFusion", "BiasSoftmaxFusion", "BitmaskDropoutReplacement",
    "CastChainElimination", "CastElimination", "ClipQuantRewrite",
    "CommonSubexpressionElimination", "ConcatSliceElimination", "ConstantFolding",
    "ConstantFoldingDQ", "ConstantSharing", "ConvActivationFusion", "ConvAddActivationFusion",
    "ConvAddFusion", "ConvBNFusion", "ConvMulFusion", "DivMulFusion", "DoubleQDQPairsRemover",
    "DQMatMulNBitsFusion", "DynamicQuantizeMatMulFusion", "EliminateDropout", "EliminateIdentity",
    "EliminateSlice", "EmbedLayerNormFusion", "EnsureUniqueDQForNodeUnit", "ExpandElimination",
    "FastGeluFusion", "FuseReluClip", "GatherSliceToSplitFusion", "GatherToSliceFusion",
    "GatherToSplitFusion", "GeluFusionL1", "GeluFusionL2", "GemmActivationFusion", "GemmSumFusion",
    "GemmTransposeFusion", "GqaValueLayoutTransformer", "GroupQueryAttentionFusion",
    "GroupQueryAttentionPreNormFusion", "IdenticalChildrenConsolidation", "IsInfReduceSumFusion",
    "LabelEncoderFusion", "LayerNormFusionL1", "LayerNormFusionL2",
    "MatMul_BatchNormalization_Fusion", "MatMulActivationFusion", "MatMulAddFusion",
    "MatMulIntegerToFloatFusion", "MatMulNBitsFusion", "MatMulNBitsMlpFusion",
    "MatMulNBitsQkvFusion", "MatMulScaleFusion", "MatmulTransposeFusion", "NchwcTransformer",
    "NhwcTransformer", "NoopElimination", "NotWhereFusion", "Pad_Fusion",
    "PreShapeNodeElimination", "PropagateCastOps", "QDQFinalCleanupTransformer",
    "QDQPropagationTransformer", "QDQS8ToU8Transformer", "QDQSelectorActionTransformer",
    "QuickGeluFusion", "ReluQuantRewrite", "RemoveDuplicateCastTransformer", "ReshapeFusion",
    "RocmBlasAltImpl", "ScaledSumFusion", "SimplifiedLayerNormFusion", "SkipLayerNormFusion",
    "SliceConcatToSpaceToDepthFusion", "TransposeOptimizer", "UnsqueezeElimination",
    "WhereDummyDq",
)  # fmt: skip

# A pass is to blame if without it no more than this part of the difference is left.
LEFT = 0.1


def guilty_passes(difference: Callable[[Sequence[str]], float | None], whole: float) -> list[str]:
    """Return the fewest passes found without which most of a difference is gone, or none.

    ``difference`` tells how far the optimised model is from the plain one without some passes,
    None where it cannot be run; ``whole`` is how far it is with all of them.
    """

    def innocent(passes: Sequence[str]) -> bool:
        """Return whether what is wrong remains when just these are left out."""
        left = difference(passes)
        return left is None or not left <= LEFT * whole

    guilty = list(PASSES)
    if innocent(guilty):
        return []
    size = len(guilty)
    while size > 1:
        size = max(1, size // 2)
        for start in range(0, len(guilty), size)[::-1]:
            rest = guilty[:start] + guilty[start + size :]
            if rest and not innocent(rest):
                guilty = rest
    return guilty
