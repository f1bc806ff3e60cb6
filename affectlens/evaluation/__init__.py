"""Evaluation: arms, judges, metrics, strengths."""

from affectlens.evaluation.arm_metrics import ArmMetrics, measure, summarise
from affectlens.evaluation.arms import ARMS, ArmKind, FoldedPack, ImitatingPack, random_pack
from affectlens.evaluation.backends import (
    BACKENDS,
    Backend,
    BackendKind,
    BackendRequest,
    Transformers,
    Vllm,
)
from affectlens.evaluation.comparisons import Comparison, compare, compare_draws
from affectlens.evaluation.perplexity import perplexity_ratio, reply_nll
from affectlens.evaluation.replies import Request, arm_requests, generate_replies
from affectlens.evaluation.reply import Reply
from affectlens.evaluation.reply_scores import Scores, score_replies
from affectlens.evaluation.tuning import StrengthPoint, best_arm, beyond, choose_strengths

__all__ = [
    "ARMS",
    "BACKENDS",
    "ArmKind",
    "ArmMetrics",
    "Backend",
    "BackendKind",
    "BackendRequest",
    "Comparison",
    "FoldedPack",
    "ImitatingPack",
    "Reply",
    "Request",
    "Scores",
    "StrengthPoint",
    "Transformers",
    "Vllm",
    "arm_requests",
    "best_arm",
    "beyond",
    "choose_strengths",
    "compare",
    "compare_draws",
    "generate_replies",
    "measure",
    "perplexity_ratio",
    "random_pack",
    "reply_nll",
    "score_replies",
    "summarise",
]
