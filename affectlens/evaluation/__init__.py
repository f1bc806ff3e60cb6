"""Evaluation: arms, judges, metrics, strengths."""

from affectlens.evaluation.arm_metrics import ArmMetrics, measure, summarise
from affectlens.evaluation.arms import ARMS, ArmKind, Reply
from affectlens.evaluation.backends import Backend, Transformers, Vllm
from affectlens.evaluation.comparisons import Comparison, compare
from affectlens.evaluation.perplexity import perplexity_ratio, reply_nll
from affectlens.evaluation.random_units import random_pack
from affectlens.evaluation.replies import Request, arm_requests, generate_replies
from affectlens.evaluation.reply_scores import Scores, score_replies
from affectlens.evaluation.tuning import StrengthPoint, beyond, choose_strengths

__all__ = [
    "ARMS",
    "ArmKind",
    "ArmMetrics",
    "Backend",
    "Comparison",
    "Reply",
    "Request",
    "Scores",
    "StrengthPoint",
    "Transformers",
    "Vllm",
    "arm_requests",
    "beyond",
    "choose_strengths",
    "compare",
    "generate_replies",
    "measure",
    "perplexity_ratio",
    "random_pack",
    "reply_nll",
    "score_replies",
    "summarise",
]
