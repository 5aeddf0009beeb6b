"""Writes the README's table of figures from the results beside this file: ``python results/table.py``."""

import json
from pathlib import Path

RESULTS = Path(__file__).parent
README = RESULTS.parent / "README.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->"

# File of the result, what it is, and the published figure for the same thing.
ROWS = [
    ("independent-digits", "independent pixels, digits", ""),
    ("fvsbn-digits", "FVSBN, digits", ""),
    ("nade-digits", "NADE, 200 hidden, digits", ""),
    ("pixel-cnn-digits", "PixelCNN, gated, digits", ""),
    ("pixel-rnn-digits", "PixelRNN, Diagonal BiLSTM, digits", ""),
    ("pixel-rnn-digits-row", "PixelRNN, Row LSTM, digits", ""),
    ("pixel-cnn-digits-labels", "PixelCNN by label, digits, labels summed out", ""),
    ("bernoulli-mixture-digits", "mixture of 60 products of coins, digits, EM", ""),
    ("vae-digits", "VAE, digits", ""),
    ("hierarchical-vae-digits", "hierarchical VAE, 2 layers, digits", ""),
    ("supervised-vae-digits", "supervised VAE, digits, all labels", ""),
    ("supervised-vae-digits-100", "supervised VAE, digits, 100 labels", ""),
    ("rbm-digits", "RBM, 200 hidden, digits", ""),
    ("dbm-digits", "DBM 200-100, digits", ""),
    ("rbm-digits-labels", "RBM with a label unit, digits", ""),
    ("independent-digits-levels", "independent levels, digits of 17 levels", ""),
    ("categorical-nade-digits-levels", "categorical NADE, digits of 17 levels", ""),
    ("linear-flow-digits-levels", "linear flow, digits of 17 levels", ""),
    ("nice-digits-levels", "NICE, digits of 17 levels", ""),
    ("realnvp-digits-levels", "RealNVP, digits of 17 levels", ""),
    ("mintnet-digits-levels", "MintNet, digits of 17 levels", ""),
    ("rnade-red-wine", "RNADE, red wine, mean of 10 folds", "9.36 (Uria et al., 2013)"),
    ("rnade-white-wine", "RNADE, white wine, mean of 10 folds", "10.23 (Uria et al., 2013)"),
    ("realnvp-red-wine", "RealNVP, red wine, mean of 10 folds", ""),
    ("realnvp-white-wine", "RealNVP, white wine, mean of 10 folds", ""),
    ("gaussian-mixture-red-wine", "mixture of 40 Gaussians, red wine, mean of 10 folds, EM", ""),
    ("gaussian-mixture-white-wine", "mixture of 40 Gaussians, white wine, mean of 10 folds, EM", ""),
    ("ppca-red-wine", "PPCA of 10 directions, red wine, mean of 10 folds, EM", ""),
    (
        "bernoulli-mixture-mnist",
        "mixture of 500 products of coins, MNIST, one binarisation, EM",
        "137.64 (one fixed; Larochelle & Murray, 2011)",
    ),
    ("fvsbn-mnist", "FVSBN, MNIST, dynamic", "97.45 (one fixed binarisation; Gregor et al., 2014)"),
    ("nade-mnist", "NADE, 500 hidden, MNIST, dynamic", "88.33 (one fixed binarisation; Uria et al., 2016)"),
    (
        "pixel-cnn-mnist",
        "PixelCNN, gated and dilated, MNIST, dynamic",
        "81.30 (one fixed; van den Oord et al., 2016)",
    ),
    (
        "pixel-rnn-mnist",
        "PixelRNN, Diagonal BiLSTM, MNIST, dynamic",
        "80.75, 1 layer; 79.20, 7 layers (one fixed; van den Oord et al., 2016)",
    ),
    ("vae-mnist", "VAE, MNIST, dynamic", "86.76 (Burda et al., 2016)"),
    ("iwae-mnist-first", "the same by IWAE-50, from the VAE's weights", ""),
    ("iwae-mnist", "the same, 34 epochs more", "84.78 (Burda et al., 2016)"),
    ("hierarchical-vae-mnist", "hierarchical VAE, 2 layers, MNIST, dynamic", "85.33 (Burda et al., 2016)"),
    ("rbm-mnist", "RBM, 500 hidden, MNIST, dynamic", "86.34 (one fixed; Salakhutdinov & Murray, 2008)"),
    ("dbm-mnist", "DBM 500-1000, MNIST, dynamic", "84.62 (one fixed; Salakhutdinov & Hinton, 2009)"),
    ("realnvp-mnist-levels", "RealNVP, MNIST of 256 levels", "1.06 bits (Song et al., 2019)"),
    ("mintnet-mnist-levels", "MintNet, MNIST of 256 levels", "0.98 bits (Song et al., 2019)"),
]


def load(name: str) -> dict:
    """One result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def likelihoods() -> list[str]:
    """The rows of models."""
    lines = [
        "| model and data | test nats | bits per dim | likelihood | published | training | machine | by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, what, published in ROWS:
        if not _is_there(name):
            continue
        result = load(name)
        test = result["test"]
        if test["kind"] == "none":
            continue
        cells = (
            what,
            f"{test['nats_per_item']:.2f} ± {test['standard_error']:.2f}",
            f"{test['bits_per_dim']:.3f}",
            _kind(test),
            published,
            _duration(result["seconds"]),
            result["machine"],
            f"`{result['command']}`",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def comparison() -> list[str]:
    """The rows of ``zoo compare`` on the digits, as it sorts them."""
    found = load("comparison-digits")
    lines = [
        f"| `{found['command']}` | test nats | likelihood | parameters | training |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        test = row["test"]
        if test["kind"] == "none":
            continue
        cells = (
            row["name"],
            f"{test['nats_per_item']:.2f} ± {test['standard_error']:.2f}",
            _kind(test),
            f"{row['parameters']:,}",
            _duration(row["seconds"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draws() -> list[str]:
    """The same rows by their draws, models without likelihood among them; real items come first."""
    rows = [row for row in load("comparison-digits")["rows"] if "samples" in row]
    if not rows:
        return []
    rows.sort(key=lambda row: row["samples"]["frechet"])
    lines = [
        "| draws against test digits | Fréchet distance | MMD² · 1000 | told apart | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    for row in [{"name": "real digits", "samples": rows[0]["samples"]["real"]}, *rows]:
        of = row["samples"]
        cells = (
            row["name"],
            f"{of['frechet']:.2f} ± {of['frechet_error']:.2f}",
            f"{1000 * of['mmd']:.1f} ± {1000 * of['mmd_error']:.1f}",
            f"{of['told_apart']:.0%}",
            f"{of['precision']:.0%}",
            f"{of['recall']:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draws_over_seeds() -> list[str]:
    """Four models by their draws, each trained from five seeds."""
    if not _is_there("draws-digits"):
        return []
    found = load("draws-digits")
    lines = [
        f"| `{found['command']}`, mean of {found['seeds']} seeds | Fréchet distance | MMD² · 1000 "
        "| told apart | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        cells = [
            name,
            *(
                f"{times * row[figure]['mean']:{form}} ± {times * row[figure]['error']:{form}}"
                for figure, times, form in (("frechet", 1, ".2f"), ("mmd", 1000, ".1f"))
            ),
            *(
                f"{row[figure]['mean']:.1%} ± {row[figure]['error']:.1%}"
                for figure in ("told_apart", "precision", "recall")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def probes() -> list[str]:
    """What a linear probe gets out of each representation, beside the raw pixels."""
    found = load("comparison-digits").get("probes", [])
    if not found:
        return []
    return [
        "| digits, label by a logistic regression from | test accuracy |",
        "|---|---|",
        *(f"| {each['name']} | {each['accuracy']:.1%} ± {each['standard_error']:.1%} |" for each in found),
    ]


def methods() -> list[str]:
    """The rows of ``zoo compare MODEL --methods all``: a VAE, and PPCA, whose θ may be unknown too."""
    lines = []
    for name in ("methods-vae-digits", "methods-ppca-red-wine"):
        found = load(name)
        lines += [
            f"| `{found['command']}` | test nats | likelihood | gradient variance | ESS per second | R-hat "
            "| training |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in found["rows"]:
            test = row["test"]
            cells = (
                row["name"],
                f"{test['nats_per_item']:.2f} ± {test['standard_error']:.2f}",
                _kind(test),
                _maybe(row.get("gradient_variance"), ".2g"),
                _maybe(row.get("draws", {}).get("ess_per_second"), ".2g"),
                _maybe(row.get("draws", {}).get("r_hat"), ".3f"),
                _duration(row["seconds"]),
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines[:-1]


def gradients() -> list[str]:
    """The rows on estimators of the ELBO's gradient, and on the importance-weighted bound."""
    found, bounds, agreement = load("gradient-variance"), load("iwae-bounds"), load("ppca-agreement")
    titles = {
        "score-function": "score function",
        "baseline": "the same less a running mean",
        "leave-one-out": "the same less the mean of the other particles",
        "reparameterized": "reparameterised",
    }
    lines = [
        f"| gradient of the ELBO, factor analysis, {found['items']} items, {found['particles']} particles "
        "| variance, nats² | largest deviation of the mean from the exact one, standard errors |",
        "|---|---|---|",
    ]
    for name, title in titles.items():
        each = found["estimators"][name]
        lines.append(f"| {title} | {each['variance']:.2g} | {each['largest_deviation']:.1f} |")
    lines += [
        "",
        "| importance-weighted bound on the same items, a guide that is too wide | nats |",
        "|---|---|",
    ]
    for k, bound in bounds["bounds"].items():
        lines.append(f"| K = {int(k):,} | {bound:.3f} ± {bounds['standard_errors'][k]:.3f} |")
    sampled = bounds["importance_sampling"]
    lines += [
        f"| importance sampling, {sampled['particles']:,} | {sampled['mean']:.4f} ± "
        f"{sampled['monte_carlo_error']:.4f} |",
        f"| exact | {bounds['exact']:.4f} |",
        "",
        "| PPCA on red wine, 3 directions, against the eigenvectors' maximum | aim | EM | SVI |",
        "|---|---|---|---|",
        f"| nats per item that it is short of it | ≤ 1e-6; ≤ 0.01 | {agreement['gap_nats']['em']:.0e} "
        f"| {agreement['gap_nats']['svi']:.0e} |",
        "| largest difference of E[V z given x] and of the covariance of V z | "
        f"| {agreement['posterior_difference']['em']:.0e} | {agreement['posterior_difference']['svi']:.0e} |",
        "",
        "| posterior of θ, PPCA of 3 entries, 30 items: E[log p(X given θ)] | nats |",
        "|---|---|",
    ]
    posterior = load("ppca-posterior")["log_likelihood"]
    lines += [
        f"| NUTS, with its Monte Carlo error | {posterior['nuts']:.3f} ± {posterior['mcse']:.3f} |",
        "| importance sampling from a t distribution about the mode | "
        f"{posterior['importance_sampling']:.3f} ± {posterior['importance_error']:.3f} |",
    ]
    return lines


def gaussians() -> list[str]:
    """What Gaussians give: one with every covariance, and on the wines ten of them, in the same folds."""
    flows = [load(f"realnvp-{colour}-wine") for colour in ("red", "white")]
    one, ten = (
        ", ".join(
            f"{flow[name]['nats_per_item']:.2f} ({colour})"
            for colour, flow in zip(("red", "white"), flows, strict=True)
        )
        for name in ("gaussian", "mixture")
    )
    levels = load("gaussian-digits-levels")["bits_per_dim"]
    return [
        f"One Gaussian with every covariance, fitted to the same folds of the wines: {one} test nats;",
        f"a mixture of ten (scikit-learn's): {ten}.",
        f"One on the digits of 17 levels, after a logit with offset 0.05: {levels:.3f} bits per dim",
    ]


def inversions() -> list[str]:
    """The rows on MintNet's inverse."""
    lines = [
        "| MintNet's inverse, float32, 1,000 test images | digits | MNIST |",
        "|---|---|---|",
    ]
    digits, mnist = (load(f"mintnet-{data}-levels")["inversion"] for data in ("digits", "mnist"))
    for what, name, form in (
        ("layers", "layers", "{}"),
        ("tolerance of a layer", "tolerance", "{:.0e}"),
        ("largest residual of a layer", "residual", "{:.1e}"),
        ("iterations of a layer, mean", "mean_iterations", "{:.1f}"),
        ("iterations of a layer, largest", "iterations", "{}"),
        ("error of an image's worst pixel after x → z → x, in levels, median", "median_error", "{:.1e}"),
        ("the same, largest", "error", "{:.1e}"),
    ):
        lines.append(f"| {what} | {form.format(digits[name])} | {form.format(mnist[name])} |")
    return lines


def representations() -> list[str]:
    """The rows on labels: what codes and classifiers know of them."""
    vae, full, few = (
        load(name) for name in ("vae-digits", "supervised-vae-digits", "supervised-vae-digits-100")
    )
    rows = [
        ("linear probe on the VAE's code (10 numbers)", f"{vae['probe']['features']:.1%}"),
        ("linear probe on the raw pixels (64 numbers)", f"{vae['probe']['raw']:.1%}"),
        ("supervised VAE, all labels: q(y given x)", f"{full['accuracy']:.1%}"),
        ("supervised VAE, 100 labels, 1,197 digits without: q(y given x)", f"{few['accuracy']:.1%}"),
        ("the same encoder, the 100 labelled digits alone", f"{few['accuracy_classifier_alone']:.1%}"),
        (
            "digits drawn by label, taken for that label by a classifier of real digits",
            f"{full['generated_as_asked']['share']:.1%}",
        ),
        ("that classifier on real test digits", f"{full['generated_as_asked']['judge_accuracy']:.1%}"),
    ]
    labelled, pixels = load("rbm-digits-labels"), load("pixel-cnn-digits-labels")
    rows += [
        ("PixelCNN by label: p(y given x) by Bayes' rule", f"{pixels['accuracy']:.1%}"),
        ("digits that it draws by label, the same", f"{pixels['generated_as_asked']['share']:.1%}"),
        ("RBM with a label unit: p(y given v)", f"{labelled['accuracy']:.1%}"),
        ("digits that it draws by label, the same", f"{labelled['generated_as_asked']['share']:.1%}"),
    ]
    return ["| digits | test accuracy |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]


def sequences() -> list[str]:
    """The rows on texts and sounds, beside what counting and linear prediction give."""
    lines = [
        "| held-out texts, state carried over the whole of each | nats per character | 5-gram | bigram "
        "| unigram | training | machine | by |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, what in (
        ("char-rnn-shakespeare", "LSTM, Shakespeare, three plays"),
        ("char-rnn-names", "LSTM, first names"),
    ):
        if not _is_there(name):
            continue
        result = load(name)
        found = result["characters"]
        cells = [f"{found[of]:.3f}" for of in ("nats_per_character", "5-gram", "bigram", "unigram")]
        cells += [_duration(result["seconds"]), result["machine"], f"`{result['command']}`"]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    result = load("wavenet-speech")
    sound = result["sound"]
    predictor = f"linear predictor of the same order, {sound['order']:,}"
    return [
        *lines,
        "",
        f"| held-out clip of 16 kHz speech | bits per sample | {predictor} | 256 levels alike | training "
        "| machine | by |",
        "|---|---|---|---|---|---|---|",
        f"| WaveNet | {sound['bits_per_sample']:.3f} | {sound['linear_predictor']:.3f} "
        f"| {sound['uniform']:.0f} | {_duration(result['seconds'])} | {result['machine']} "
        f"| `{result['command']}` |",
    ]


def cached_drawing() -> list[str]:
    """The rows on what a cache saves, and on training steps of the networks over images and sounds."""
    rows = [
        (
            "PixelCNN 15 × 16, drawing 16 images of 28×28: times as fast as full passes",
            "≥ 20",
            "pixel-cnn-draw",
        ),
        ("PixelRNN, Diagonal BiLSTM: the same", "≥ 20", "pixel-rnn-draw-diagonal-bilstm"),
        ("PixelRNN, Row LSTM: the same", "≥ 20", "pixel-rnn-draw-row-lstm"),
        ("WaveNet, drawing 16 kHz sound: times as fast as full passes", "≥ 50", "wavenet-draw"),
        ("PixelCNN 15 × 16, training step: its time over plain PyTorch's", "≤ 1.10", "pixel-cnn-step"),
        ("WaveNet, training step: the same", "≤ 1.10", "wavenet-step"),
        ("CharRNN, LSTM of 512, training step: the same", "≤ 1.10", "char-rnn-step"),
        ("PixelRNN, Diagonal BiLSTM, training step: the same", "≤ 1.10", "pixel-rnn-step-diagonal-bilstm"),
        ("PixelRNN, Row LSTM, training step: the same", "≤ 1.10", "pixel-rnn-step-row-lstm"),
    ]
    lines = [
        "| caches, and networks beside plain PyTorch | aim | 1 thread | 2 threads |",
        "|---|---|---|---|",
    ]
    for what, aim, name in rows:
        if _is_there(f"{name}-1"):
            one, two = (load(f"{name}-{threads}")["ratio"] for threads in (1, 2))
            lines.append(f"| {what} | {aim} | {one:.3g} | {two:.3g} |")
    if _is_there("wavenet-draw-1"):
        one, two = (load(f"wavenet-draw-{threads}")["samples_per_second"] for threads in (1, 2))
        lines.append(f"| WaveNet, samples drawn per second | | {one:,.0f} | {two:,.0f} |")
    return lines


def log_partitions() -> list[str]:
    """The rows on log Z of the machines, and on what the bound of mean field leaves."""
    names = [name for name in ("rbm-digits", "dbm-digits", "rbm-mnist", "dbm-mnist") if _is_there(name)]
    titles = {name: title.split(",")[0] for name, title, _ in ROWS}
    tests = [load(name)["test"] for name in names]
    above = [test["log_z"]["reverse"] for test in tests]
    rows = {
        "log Z by AIS, from below, nats": [_within(test["log_z"]) for test in tests],
        "log Z by reverse AIS from chains of the machine": [_within(reverse) for reverse in above],
        "-log p(v) of so many first test items, bound by mean field": [
            f"{test['posterior']['items']}: {test['posterior']['bound_nats_per_item']:.2f}"
            if "posterior" in test
            else "exact"
            for test in tests
        ],
        "the same, estimate by AIS from the mean field": [
            f"{test['posterior']['nats_per_item']:.2f}" if "posterior" in test else "" for test in tests
        ],
        "KL of mean field from the posterior, nats": [
            f"{test['posterior']['gap']:.3f}" if "posterior" in test else "0" for test in tests
        ],
    }
    head = " | ".join(f"{titles[name]}, {_data(name)}" for name in names)
    return [
        f"| Boltzmann machines, 95 % intervals | {head} |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()),
    ]


def annealing() -> list[str]:
    """The rows on AIS where log Z is known by enumeration."""
    error, coverage = load("ais-error"), load("ais-coverage")["covered"]
    machines, patches = load("ais-random-machines"), load("rbm-patches")
    return [
        "| AIS where log Z is known | aim | reached |",
        "|---|---|---|",
        "| 20 random machines, 1, 2 and 5 steps, 100,000 chains: worst mean of ŵ/Z, standard errors from 1 | "
        f"< 4 | {machines['largest_in_standard_errors']:.1f} |",
        *(
            f"| RBM of 16 pixels, 100 chains: root mean square error of log Ẑ at {betas:,} steps, nats | "
            f"≤ {aim} | {error[f'rms_nats_at_{betas}']:.4f} |"
            for betas, aim in ((100, 0.5), (1000, 0.05), (10_000, 0.005))
        ),
        *(
            f"| the 95 % interval covers log Z, {what} | ≥ 93 % | {coverage[which]:.1%} |"
            for which, what in (("forward", "forward"), ("reverse", "in reverse"))
        ),
        f"| both together bracket it | ≥ 93 % | {coverage['both']:.1%} |",
        f"| that RBM, exact nats per patch of the training; independent pixels | | "
        f"{patches['nats_per_item']:.2f}; {patches['independent_pixels']:.2f} |",
    ]


def anomalies() -> list[str]:
    """The rows on what log p(x) tells from test items."""
    lines = [
        "| area under the ROC curve of log p(x), test items against | digits, NADE | MNIST, NADE |",
        "|---|---|---|",
    ]
    digits, mnist = load("anomaly-nade-digits")["against"], load("anomaly-nade-mnist")["against"]
    for name in mnist:
        cells = (
            f"{by[name]['auc']:.3f} ± {by[name]['standard_error']:.3f}" if name in by else ""
            for by in (digits, mnist)
        )
        lines.append(f"| {mnist[name]['description']} | {' | '.join(cells)} |")
    return lines


def timings() -> list[str]:
    """The rows on speed."""
    lines = [
        "| training step of the VAE 784-400-20, batch 100, over plain PyTorch's | 1 thread | 2 threads |",
        "|---|---|---|",
    ]
    for what, name in (("eager", "eager-step"), ("`compile=True`", "compiled-step")):
        lines.append(f"| {what} | {load(f'{name}-1')['ratio']:.2f} | {load(f'{name}-2')['ratio']:.2f} |")
    return lines


def autoregressive_timings() -> list[str]:
    """The rows on what a site for every pixel costs."""
    rows = [
        ("FVSBN, scoring: its time over plain PyTorch's", "≤ 1.10", "fvsbn-cost", ("score",)),
        ("FVSBN, training step: the same", "≤ 1.10", "fvsbn-cost", ("step",)),
        ("FVSBN, scoring: times as fast as a Pyro site per pixel", "≥ 15", "fvsbn-sites", ("score",)),
        ("FVSBN, training step: the same", "≥ 15", "fvsbn-sites", ("step",)),
        ("NADE, training step: times as fast as a loop over pixels", "≥ 3", "nade-cost", ("step", "loop")),
        ("the same, a loop tuned by hand", "", "nade-cost", ("step", "tuned_loop")),
        ("the same, cumulative sums", "≥ 5", "nade-cost", ("step", "cumulative")),
        ("FVSBN, 100 draws: times as fast as the traced program", "≥ 3", "fvsbn-draw", ("ratio",)),
        ("the same, the program without gradient and validation", "", "fvsbn-draw", ("bare_ratio",)),
        ("NADE, 100 draws: times as fast as the traced program", "≥ 3", "nade-draw", ("ratio",)),
        ("the same, the program without gradient and validation", "", "nade-draw", ("bare_ratio",)),
    ]
    lines = [
        "| 784 pixels, batch 100, NADE with 500 hidden | aim | 1 thread | 2 threads |",
        "|---|---|---|---|",
    ]
    for what, aim, name, path in rows:
        cells = [load(f"{name}-1"), load(f"{name}-2")]
        for key in path:
            cells = [cell[key] for cell in cells]
        one, two = cells
        lines.append(f"| {what} | {aim} | {one:.2f} | {two:.2f} |")
    memory = load("nade-memory")["ratio"]
    lines.append(f"| NADE, training step: peak memory over cumulative sums' | ≤ 0.10 | {memory:.3f} | |")
    return lines


def flow_timings() -> list[str]:
    """The rows on RealNVP beside other libraries' of the same layers and widths."""
    lines = [
        "| RealNVP, 8 couplings of 128-128: their time over ours, aim ≥ 1 | "
        "Zuko, 1 thread | 2 threads | nflows, 1 thread | 2 threads |",
        "|---|---|---|---|---|",
    ]
    names = {
        11: ("realnvp-step-wine", "realnvp-draw-wine"),
        64: ("realnvp-step-digits", "realnvp-draw-digits"),
    }
    for num, timed in names.items():
        step, draw = ([load(f"{name}-{threads}") for threads in (1, 2)] for name in timed)
        rows = [(f"{num} entries, training step, batch 100", step, "")]
        rows += [(f"{num} entries, {count:,} draws", draw, f"-{count}") for count in (100, 1000)]
        for what, results, suffix in rows:
            cells = [f"{result[f'{of}{suffix}']:.2f}" for of in ("zuko", "nflows") for result in results]
            lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def machine_timings() -> list[str]:
    """The rows on learning by contrast beside scikit-learn's."""
    lines = [
        "| PCD-1, RBM 784-500, batch 100: scikit-learn's time of an epoch over ours | aim | 1 thread "
        "| 2 threads |",
        "|---|---|---|---|",
    ]
    for name, what, aim in (
        ("rbm-epoch-double", "theirs fed float64, as it comes", "≥ 1.6"),
        ("rbm-epoch-single", "theirs fed float32, as ours", ""),
    ):
        one, two = (load(f"{name}-{threads}")["ratio"] for threads in (1, 2))
        lines.append(f"| {what} | {aim} | {one:.2f} | {two:.2f} |")
    return lines


def em_timings() -> list[str]:
    """The rows on EM beside scikit-learn's."""
    lines = [
        "| EM, mixture of 5 Gaussians, red wine, same start: scikit-learn's time over ours | aim | 1 thread "
        "| 2 threads | difference of log-likelihoods, nats |",
        "|---|---|---|---|---|",
    ]
    for name in ("em-full", "em-tied", "em-diagonal", "em-spherical"):
        one, two = (load(f"{name}-{threads}") for threads in (1, 2))
        difference = max(one["difference_nats"], two["difference_nats"])
        lines.append(
            f"| {one['covariance']} | ≥ 1 | {one['ratio']:.2f} | {two['ratio']:.2f} | {difference:.0e} |"
        )
    return lines


def sampler_timings() -> list[str]:
    """The rows on samplers beside Pyro's, and on chains side by side."""
    rows = [
        (
            "random walk, effective draws per second, Gaussian of 10 dimensions",
            "≥ 2",
            "sampler-random-walk-gaussian",
            "ess_per_second_ratio",
            "times those of Pyro's `RandomWalkKernel`",
        ),
        (
            "the same, regression on covariates of unlike scales",
            "≥ 2",
            "sampler-random-walk-regression",
            "ess_per_second_ratio",
            "",
        ),
        (
            "Pyro's `HMC` under `run_chains`, its time",
            "≤ 1.03",
            "sampler-hmc-overhead",
            "ratio",
            "over that under Pyro's `MCMC`, the same draws",
        ),
        (
            "MALA, 100 dimensions, draws per second of 1,000 chains in one batch, a program",
            "≥ 100",
            "sampler-batch-program",
            "ratio",
            "times those of 1,000 in turn",
        ),
        ("the same, a function", "≥ 100", "sampler-batch-function", "ratio", ""),
    ]
    lines = ["| samplers | aim | 1 thread | 2 threads | |", "|---|---|---|---|---|"]
    for what, aim, name, key, of in rows:
        one, two = (load(f"{name}-{threads}")[key] for threads in (1, 2))
        lines.append(f"| {what} | {aim} | {one:.3g} | {two:.3g} | {of} |")
    return lines


def samplers() -> list[str]:
    """The rows on samplers where the answer is known, and on those that are broken on purpose."""
    found, broken, langevin = load("sampler-moments"), load("sampler-broken"), load("langevin-bias")
    lines = [
        "| samplers where the answer is known | targets | moments | worst of them, in MCSE, aim < 4 |",
        "|---|---|---|---|",
    ]
    for name, targets in found["kernels"].items():
        moments = sum(each["moments"] for each in targets.values())
        worst, where = max((each["largest"], of) for of, each in targets.items())
        lines.append(f"| {name} | {len(targets)} | {moments} | {worst:.1f} ({where}) |")
    least = min(each["broken"] for each in broken.values())
    most = max(each["broken"] for each in broken.values())
    sound = max(each["sound"] for each in broken.values())
    lines += [
        f"| {len(broken)} kernels broken on purpose (always accepting, a wrong ratio, a stale gradient, …) "
        f"| | | {least:.1f} to {most:.0f}; the same ones unbroken {sound:.1f} at most |",
        "",
        "| unadjusted Langevin, a Gaussian of 2 dimensions, E[x_1² + x_2²] = 2 | bias | foretold for ε |",
        "|---|---|---|",
    ]
    for row in langevin["rows"]:
        bias = f"{row['bias']:.3f} ± {row['mcse']:.3f}"
        lines.append(f"| ε = {row['step_size']:g} | {bias} | {row['foretold']:.3f} |")
    return lines


def calibration() -> list[str]:
    """The rows on simulation-based calibration."""
    found = load("sbc")
    lines = [
        "| simulation-based calibration, 200 replications: p that ranks are uniform | aim | p |",
        "|---|---|---|",
    ]
    for name, each in found["right"].items():
        lines.append(f"| {name} | > 0.01 | {each['p_value']:.2g} |")
    for name, each in found["wrong"].items():
        lines.append(f"| wrong on purpose: {name} | < 0.0001 | {each['p_value']:.0e} |")
    return lines


def table() -> str:
    """All of it, as it stands in the README."""
    parts = (
        comparison(),
        draws(),
        draws_over_seeds(),
        probes(),
        likelihoods(),
        sequences(),
        gaussians(),
        inversions(),
        log_partitions(),
        annealing(),
        anomalies(),
        representations(),
        methods(),
        gradients(),
        em_timings(),
        timings(),
        autoregressive_timings(),
        cached_drawing(),
        flow_timings(),
        machine_timings(),
        samplers(),
        calibration(),
        sampler_timings(),
    )
    return "\n\n".join("\n".join(rows) for rows in parts if rows) + "\n"


def _kind(test: dict) -> str:
    """How a figure was found."""
    if test["kind"] == "exact":
        return "exact"
    if "log_z" in test:
        return "estimate, log Z by AIS" if test["kind"] == "estimate" else "≤, mean field, log Z by AIS"
    if test["kind"] == "estimate":
        return f"predictive, {test['particles']:,} draw{'' if test['particles'] == 1 else 's'} of θ"
    how = "draws of noise, mean" if test.get("bound") == "elbo" else "importance samples"
    return f"≤, {test['particles']:,} {how}"


def _maybe(figure: float | None, form: str) -> str:
    """A figure that not every row has."""
    return "" if figure is None else format(figure, form)


def _data(name: str) -> str:
    """The data set of a result, as people write it."""
    return {"digits": "digits", "mnist": "MNIST"}[name.split("-")[1]]


def _is_there(name: str) -> bool:
    return (RESULTS / f"{name}.json").exists()


def _within(log_z: dict) -> str:
    """An estimate of log Z with its interval."""
    return f"{log_z['estimate']:.2f} ({log_z['low']:.2f} … {log_z['high']:.2f})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


if __name__ == "__main__":
    before, _, rest = README.read_text().partition(START)
    _, _, after = rest.partition(END)
    README.write_text(before + START + "\n" + table() + "\n" + END + after)
