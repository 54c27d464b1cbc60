"""Bad command lines: what each command needs, and for each of its options what no sensible reading exists of."""

from __future__ import annotations

from collections.abc import Iterator

# Shared by several options; what holds no space stands in one string.
WORDS = ("", " ", "1 2", *"x None 1x".split())
NO_COUNT = (*WORDS, *"0 -1 1.5 1e3 nan inf 0x10".split())
NO_NUMBER = (*WORDS, *"nan inf -inf 1/0 1e999 8/255/2 / 0,1;".split())
NO_SHARE = (*NO_NUMBER, *"-0.1 1.1 83".split())
NO_DEVICE = ("", *"x gpu cuda:x meta cpu:x cuda:99 a\0b".split())
NO_FILE = ("", *"a\0b no/folder.npz own.py broken.npz broken.safetensors text.csv /dev/null digits(".split())
NO_DATA = (*NO_FILE, *"digits(x=1) empty.npz flat.npz".split())
NO_BOX = ("", *"1 1,0 0,0 x,y nan,1 0,inf 0,1,2 no.npz broken.npz".split())
NO_FOLDER = ("text.csv", "text.csv/below", "/proc/below", "a\0b")
NO_AUDIT = ("", *"nowhere text.csv hollow ruined a\0b".split())
NO_CALLABLE = (
    ": own own.py own.py: :sound no.py:sound own.py:nothing own.py:SIZE own.py:needs own.py:raises".split()
)
NO_NETWORK = (
    "no.module:sound broken.pt broken.onnx no.toml broken.toml hf: timm: a\0b . own..py:sound".split()
)
NO_DEFENDED = ("own.py:sound +", "own.py:sound + nothing()", "own.py:sound + jpeg(quality=")
NO_TARGET = ("", *NO_CALLABLE, *NO_NETWORK, *NO_DEFENDED)
NO_SIZE = ("", *"0 -1 x 1x2x3 x2 1.5".split())
NO_DEFENSE = ("", *"x jpeg( jpeg(quality=x) jpeg(no=1) jpeg(quality=1000) jpeg(1)(2) open('x')".split())
NO_ATTACK = ("", *": no.py:x own.py own.py:nothing own.py:SIZE own.py:sound".split())

LOADING = {
    "--data": NO_DATA,
    "--norm": ("", "l3", "LINF", "0"),
    "--epsilon": (*NO_NUMBER, "-0.1", "8", "0.1,0.2,0.3", "no.npy", "broken.npz", ","),
    "--split": ("", "nowhere", "a\0b"),
    "--examples": NO_COUNT,
    "--batch-size": NO_COUNT,
    "--seed": ("", "x", "-1", "1.5", "1e3", str(2**63)),
    "--device": NO_DEVICE,
    "--box": NO_BOX,
    "--arch": ("", "x", "own.py:Means"),
    "--mean": ("", "x", "1,x", "nan"),
    "--std": ("", "0", "x", "1,"),
    "--resize": NO_SIZE,
    "--crop": NO_SIZE,
    "TARGET": NO_TARGET,
}
AUDIT = LOADING | {
    "--passes": NO_COUNT,
    "--average": ("", "mean", "0"),
    "--goal": ("", "any"),
    "--targets": ("", "x", "-1", "99", "1.5"),
    "--knowledge": ("", "grey", "transfer"),
    "--queries": NO_COUNT,
    "--claim": NO_SHARE,
    "--attack": NO_ATTACK,
    "--budget": ("", "slow"),
    "--defense": NO_DEFENSE,
    "--out": NO_FOLDER,
    "--fail-under": NO_SHARE,
    "--resume": NO_AUDIT,
    "--no-such-option": ("1",),
}
BOUND = LOADING | {
    "--targeted": ("", "any"),
    "--budget": ("", "slow"),
    "--batches": (*NO_COUNT, "9"),
    "--samples": NO_COUNT,
    "--certify": ("", "any"),
}
TRAIN = {
    "RECIPE": ("", "none", "PGD"),
    "TARGET": ("", "own.py", "no.py:x", "own.py:SIZE", "own.py:raises", "a\0b"),
    "--data": NO_DATA,
    "--arch": ("", "transformer"),
    "--norm": ("", "l3", "l0"),
    "--epsilon": (*NO_NUMBER, "-0.1", "8"),
    "--epochs": NO_COUNT,
    "--batch-size": NO_COUNT,
    "--learning-rate": ("", "x", "nan", "inf", "-1"),
    "--examples": NO_COUNT,
    "--pad": ("", "x", "-1", "1.5"),
    "--average": ("", "x", "nan", "-0.1", "1", "2"),
    "--ramp": ("", "x", "nan", "-0.1", "2"),
    "--steps": NO_COUNT,
    "--step-size": ("", "x", "nan", "-1", "inf"),
    "--validation": ("", "x", "-1", "1.5", "100000"),
    "--patience": NO_COUNT,
    "--seed": ("", "x", "-1", "1.5", str(2**63)),
    "--device": NO_DEVICE,
    "--out": NO_FOLDER,
}
# What an audit and a bound are asked with.
ASKED = [
    "TARGET=own.py:sound",
    "--data=small.npz",
    "--norm=linf",
    "--epsilon=0.1",
    "--budget=quick",
    "--quiet",
]
# A command, words that would do, and for each option what will not; in capitals, the place of a word without one.
COMMANDS: dict[str, tuple[list[str], dict[str, tuple[str, ...]]]] = {
    "audit": (
        ASKED,
        AUDIT,
    ),
    "bound": (
        ASKED,
        BOUND,
    ),
    "train": (
        [
            "RECIPE=pgd",
            "--data=both.npz",
            "--epsilon=0.1",
            "--epochs=1",
            "--batch-size=16",
            "--steps=1",
            "--arch=mlp",
            "--out=trained",
        ],
        TRAIN,
    ),
    "verify": (
        ["DIR=done", "--quiet"],
        {
            "DIR": NO_AUDIT,
            "--target": NO_TARGET,
            "--data": NO_DATA,
            "--claim-file": ("", "no.toml", "broken.toml", "own.py", "a\0b"),
            "--device": NO_DEVICE,
        },
    ),
    "export": (
        ["DIR=done"],
        {
            "DIR": (*NO_AUDIT, "done"),  # there is nothing to write
            "--adversarial": ("", "x", "x.txt", "no/such/folder/x.npz", "a\0b.npz", "hollow"),
            "--script": ("", "no/such/folder/x.py", "a\0b.py", "hollow"),
            "--csv --out": NO_FOLDER,
            "--plotted": ("1",),
        },
    ),
    "compare": (["DIR=done", "OTHER=again"], {"DIR": NO_AUDIT, "--csv": ("1",)}),
    "claim check": (
        ["FILE=claim.toml"],
        {"FILE": ("", "no.toml", "broken.toml", "own.py", "hollow", "a\0b")},
    ),
    "claim new": (
        ["--target=own.py:sound", "--norm=linf", "--epsilon=0.1", "--out=new.toml"],
        {name: AUDIT[name] for name in ("--passes", "--examples", "--batch-size", "--queries", "--seed")}
        | {
            "--target": ("own.py:nothing", "own.py:SIZE", "no.py:sound", "broken.pt"),
            "--checkpoint-hash": ("x", "0" * 63),
            "--norm": ("", "l3"),
            "--epsilon": ("x", "nan", "inf", "-0.1"),
            "--claim": ("x", "nan", "-0.1", "1.1", "83"),
            "--clean-accuracy": ("x", "nan", "-0.1", "1.1"),
            "--box": ("1", "[1.0]"),
            "--adaptive": ("x", "2"),
            "--out": ("text.csv", "no/such/folder.toml", "text.csv/below", "a\0b"),
        },
    ),
    "reproduce": (
        ["NAME=clever", "--quick", "--list"],
        {
            "NAME": ("", "nothing", "../sap", "a.b", "a\0b"),
            "--examples": NO_COUNT,
            "--steps": NO_COUNT,
            "--seed": ("", "x", "1.5"),
            "--seeds": NO_COUNT,
            "--only": ("nothing",),
            "--device": NO_DEVICE,
        },
    ),
    "demo": ([], {"--out": NO_FOLDER, "--quick": ("1",)}),
    "claim": ([], {"ACTION": ("", "old")}),
    "": ([], {"COMMAND": ("", "preflight", "audits", "Audit")}),
}


def lines() -> Iterator[list[str]]:
    """Each command line with one bad word, and the same options without any value."""
    for command, (good, bad) in COMMANDS.items():
        for option, values in bad.items():
            for value in values:
                yield [*command.split(), *words(good, option, value)]
            if option.startswith("--"):
                yield [*command.split(), *words(good), *option.split()]
        yield [*command.split(), *words(good), "one", "too", "many", "--and=another"]


def words(good: list[str], option: str = "", value: str = "") -> list[str]:
    """Words that would do, with another value of that option."""
    given = {name: text for name, _, text in (word.partition("=") for word in good)}
    if option:
        given.pop(option.split()[-1], None)
        given[option] = value
    if "--targets" in given:
        given["--goal"] = "targeted"
    if "--queries" in given:
        given["--knowledge"] = "scores"
    found = []
    for name, text in given.items():
        *before, last = name.split()
        flag = last in ("--quick", "--list", "--quiet") and not text
        found += [*before, text if not name.startswith("--") else last if flag else f"{last}={text}"]
    return found
