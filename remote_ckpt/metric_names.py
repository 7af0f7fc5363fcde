"""Which way a metric is better, by the words of its name. Where the words leave a doubt, no answer is given.

A name is split into words at everything but letters, and where capitals begin (`BinaryAccuracy`). Words that only
qualify (`mean`, `score`, `top_5`, `macro`) are passed over, and then:

- A word that turns the meaning round leaves no answer at all: `neg_mean_squared_error`, `inverse_accuracy`.
- A name that ends in `loss` or `error` is better down, whatever else comes before: `accuracy_loss`, `top5_error`.
- Otherwise its last word decides, if it is in one of the two lists below, none of the words before it is in the other,
  and none speaks of something else: `head_auc` is better up; there is no answer for `error_auc`, `error_reduction`,
  `inaccuracy`, `std_reward`.
"""

from __future__ import annotations

import re
from typing import Literal

Mode = Literal["min", "max"]


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_RISING = _listed(
    """
    acc accuracy accuracies auc auroc aucroc rocauc auprc aucpr prauc precision precisions recall recalls sensitivity
    specificity tpr tnr ppv npv fscore fmeasure fbeta iou miou giou jaccard dice mcc matthews kappa qwk gini youden
    psnr ssim msssim vmaf snr sisnr sdr sisdr stoi pesq ndcg dcg mrr map ap hit hits success bleu sacrebleu rouge
    meteor cider chrf bertscore similarity correlation pearson spearman kendall concordance cindex rsquared nse kge
    likelihood elbo reward rewards return returns win wins winrate profit sharpe silhouette
    """
)
_FALLING = _listed(
    """
    mse rmse nrmse mae nmae mape smape msle rmsle mase crossentropy bce nll logloss hinge poisson logcosh huber pinball
    brier ece perplexity ppl bpc bpd divergence kl kld wer cer ter der eer ber fpr fnr fid lpips
    misclassification misclassifications mistake mistakes miss misses failure failures cost costs regret deviance
    residual residuals hausdorff levenshtein
    """
)
_LOSING = _listed("loss losses error errors err")
"""As a name's last word they decide alone."""

_NEGATING = _listed("neg negative negated minus inv inverse inverted reciprocal non not anti")
_SHIFTING = _listed(
    """
    no un in mis dis complement complementary lack missing bad wrong low false true std stddev var variance deviation
    gap diff difference delta change drop decrease reduction increase improvement grad gradient slope range to until
    before without since from vs versus against between under over per of time
    """
)
"""With these a name may speak of something else than its last word: `std_reward`, `time_to_success`."""

_QUALIFYING = _listed(
    """
    a at k n mean avg average macro micro weighted unweighted balanced median total overall global all score
    scores value values val valid validation test train training eval epoch step ema class classes rate roc pr coef
    coeff coefficient index metric l r rho
    """
)
_PHRASES = (
    (r"io_u", "iou"),
    (r"f[_ ]?(?:\d+(?:[._]\d+)?|beta)(?:[_ ]?score)?", "fscore"),
    (r"f_(?:score|measure)", "fscore"),
    (r"(?:r2|r_squared?|r_2)(?:[_ ]?score)?", "rsquared"),
    (r"cross_entropy", "crossentropy"),
    (r"top_?(?:k|\d+)", "topk"),
    (r"exact_match", "accuracy"),
    (r"intersection_over_union", "iou"),
    (r"area_under_(?:the_)?(?:roc_)?curve", "auc"),
    (r"false_(?:positive|negative)s", "misses"),
    (r"true_(?:positive|negative)s", "hits"),
    (r"neg(?:ative)?_log_likelihood", "nll"),
    (r"log_cosh", "logcosh"),
)
"""Terms that are more than a word of letters."""

_MINUS = re.compile(r"(?<![A-Za-z0-9])(?:1 ?)?- ?(?=[A-Za-z])")
"""The sign of `-loss` and `1-accuracy`; in `top-accuracy` it is a hyphen."""


def mode_of(name: str) -> Mode | None:
    """Return which way the metric called `name` is better; None where its words leave a doubt."""
    words = _words(name)
    while words and words[-1] in _QUALIFYING:
        words.pop()
    if not words:
        return None
    *before, last = words
    if _NEGATING.intersection(words):
        return None
    if last in _LOSING:
        return "min"
    if _SHIFTING.intersection(words):
        return None
    if last == "topk":
        last = "accuracy"
    if last in _RISING and not (_FALLING | _LOSING).intersection(before):
        return "max"
    if last in _FALLING and not _RISING.intersection(before):
        return "min"
    return None


def _words(name: str) -> list[str]:
    """Return a metric's words in small letters; one that is known in capitals (`AUC`, `mAP`) stays whole."""
    text = _MINUS.sub(" minus ", name.replace("IoU", "Iou"))
    for pattern, word in _PHRASES:
        text = re.sub(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z])", f" {word} ", text, flags=re.IGNORECASE)
    words: list[str] = []
    for piece in re.findall(r"[A-Za-z]+", text):
        if piece.lower() in _RISING | _FALLING | _LOSING:
            words.append(piece.lower())
        else:
            words += [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", piece)]
    return words
