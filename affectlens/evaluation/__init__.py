"""Evaluation: arms, judges, metrics, strengths."""

from affectlens.evaluation.arms import ARMS, ArmMetrics, Reply, measure
from affectlens.evaluation.backends import Backend, Transformers, Vllm
from affectlens.evaluation.controls import random_pack
from affectlens.evaluation.generate import Request, arm_requests, generate_replies
from affectlens.evaluation.scoring import perplexity_ratio, reply_nll
from affectlens.evaluation.tuning import StrengthPoint, choose_strengths

__all__ = [
    "ARMS",
    "ArmMetrics",
    "Backend",
    "Reply",
    "Request",
    "StrengthPoint",
    "Transformers",
    "Vllm",
    "arm_requests",
    "choose_strengths",
    "generate_replies",
    "measure",
    "perplexity_ratio",
    "random_pack",
    "reply_nll",
]
