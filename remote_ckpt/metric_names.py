"""The direction of a metric (is higher or lower better?), from the words of its name; None in case of doubt.

A name is split into words at every character that is not a letter, and before capitals (`BinaryAccuracy`). Qualifying
words at the end (`mean`, `score`, `macro`) are dropped. Then:

- If a word reverses the meaning, the result is None: `neg_mean_squared_error`, `inverse_accuracy`.
- Lower is better for a name that ends in `loss` or `error`, after any other words: `accuracy_loss`, `top5_error`.
- Otherwise the last word decides, if three conditions hold: it is in one of the first two lists below; no word before
  it has the opposite direction; and no word shifts the meaning. Higher is better for `head_auc`; the result is None
  for `error_auc`, `error_reduction`, `inaccuracy`, `std_reward`.
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
"""As the last word of a name, one of these decides alone."""

_NEGATING = _listed("neg negative negated minus inv inverse inverted reciprocal non not anti")
_SHIFTING = _listed(
    """
    no un in mis dis complement complementary lack missing bad wrong low false true std stddev var variance deviation
    gap diff difference delta change drop decrease reduction increase improvement grad gradient slope range to until
    before without since from vs versus against between under over per of time
    """
)
"""With one of these words, a name may measure something other than its last word: `std_reward`, `time_to_success`."""

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
"""Terms of several words, or with digits; each is replaced by a single word."""

_MINUS = re.compile(r"(?<![A-Za-z0-9])(?:1 ?)?- ?(?=[A-Za-z])")
"""The minus sign in `-loss` and `1-accuracy`, but not the hyphen in `top-accuracy`."""


def mode_of(name: str) -> Mode | None:
    """Return the direction in which the metric called `name` is better; None in case of doubt."""
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
    """Return the words of a metric's name in small letters; a listed word with capitals (`AUC`, `mAP`) is not split."""
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
