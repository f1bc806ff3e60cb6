"""Evaluation: arms, judges, metrics, strengths."""

from affectlens.evaluation.arms import ARMS, ArmKind, Reply
from affectlens.evaluation.backends import Backend, Transformers, Vllm
from affectlens.evaluation.comparing import Comparison, compare
from affectlens.evaluation.controls import random_pack
from affectlens.evaluation.generate import Request, arm_requests, generate_replies
from affectlens.evaluation.measuring import ArmMetrics, measure, summarise
from affectlens.evaluation.scores import Scores, score_replies
from affectlens.evaluation.scoring import perplexity_ratio, reply_nll
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
