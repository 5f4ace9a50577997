"""Translators between many languages: where the code of a text's language stands, and SentencePiece files in fairseq's order of ids."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tgen.files import read_optional_json
from tgen.text.files.added import Settings, more_tokens
from tgen.text.files.pieces import PieceModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library

# M2M-100's __en__, mBART's en_XX, NLLB's eng_Latn.
CODE = re.compile(r"__[A-Za-z_]{2,8}__|[a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3}")
# The codes of mBART-50, of which the first 25 are mBART's, and of M2M-100, in the order of their ids.
MBART_50 = """
ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK
tr_TR vi_VN zh_CN af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN
te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
""".split()
M2M_100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig ilo is it ja jv
ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn
tr uk ur uz vi wo xh yi yo zh zu
""".split()
START = ["<s>", "<pad>", "</s>", "<unk>"]
# For each class: the language of a text where the folder does not say, and whether its code stands before the text or behind the end token.
FRAMES = {
    "M2M100Tokenizer": ("__en__", True),
    "NllbTokenizer": ("eng_Latn", True),
    "MBart50Tokenizer": ("en_XX", True),
    "MBartTokenizer": ("en_XX", False),
}
BY_MODEL = {
    "albert": "AlbertTokenizer",
    "camembert": "CamembertTokenizer",
    "m2m_100": "M2M100Tokenizer",
    "mbart": "MBartTokenizer",
    "pegasus": "PegasusTokenizer",
}


def tokenizer_class(folder: Path, settings: Settings) -> str:
    """The class that reads a folder in transformers: by tokenizer_config.json, else config.json."""
    config = read_optional_json(folder / "config.json")
    named = settings.kind or str(config.get("tokenizer_class") or "").removesuffix("Fast")
    return named if named in FRAMES or named in BY_MODEL.values() else BY_MODEL.get(str(config.get("model_type")), named)


def source_frame(folder: Path, settings: Settings) -> tuple[str, bool] | None:
    """The code of the language of a text, and whether it stands first; None for a tokenizer without languages."""
    kind = tokenizer_class(folder, settings)
    if kind not in FRAMES:
        return None
    code, first = FRAMES[kind]
    asked = settings.values.get("src_lang")
    if isinstance(asked, str) and asked:
        code = f"__{asked}__" if kind == "M2M100Tokenizer" and not CODE.fullmatch(asked) else asked
    return code, first and not (kind == "NllbTokenizer" and settings.flag("legacy_behaviour"))


def frame_source(library: Library, folder: Path, settings: Settings) -> None:
    """Let each text get its language's code and the end token, where the folder is such a translator's."""
    from tokenizers import processors

    if (frame := source_frame(folder, settings)) is None:
        return
    ids = [(name, number) for name in (frame[0], "</s>") if (number := library.token_to_id(name)) is not None]
    if len(ids) == 2:
        single = f"{frame[0]} $A </s>" if frame[1] else f"$A </s> {frame[0]}"
        library.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)


def language_codes(folder: Path, settings: Settings) -> list[str]:
    """The codes that stand behind the pieces, in the order of their ids: as the folder lists them, else the family's."""
    kind = tokenizer_class(folder, settings)
    listed = [token for token in more_tokens(settings.values) if CODE.fullmatch(token)]
    if kind == "M2M100Tokenizer":
        return listed or [f"__{code}__" for code in M2M_100]
    return listed or {"MBartTokenizer": MBART_50[:25], "MBart50Tokenizer": MBART_50}.get(kind, [])


def fairseq_order(model: PieceModel, folder: Path, settings: Settings) -> tuple[PieceModel, list[str]]:
    """A SentencePiece file's model in the order of ids that fairseq gave it, and the tokens behind its pieces."""
    if tokenizer_class(folder, settings) == "CamembertTokenizer":
        first = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]
        return _reordered(model, first, 1), ["<mask>"]
    return _reordered(model, START, 3), [*language_codes(folder, settings), "<mask>"]


def pegasus_order(model: PieceModel, settings: Settings) -> PieceModel:
    """The model of a PEGASUS folder: padding, end and masks come first."""
    offset = settings.values.get("offset", 103)
    offset = offset if isinstance(offset, int) and 2 <= offset <= 1000 else 103
    first = ["<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{number}>" for number in range(2, offset))]
    return _reordered(model, first[: offset + 2], 2)


def _reordered(model: PieceModel, first: list[str], skipped: int) -> PieceModel:
    """The model with these control pieces in place of its first ones."""
    kinds = {piece: kind for piece, _, kind in model.pieces}
    control = [(piece, 0.0, 2 if piece == "<unk>" else 3) for piece in first]
    pieces = [*control, *model.pieces[skipped:]]
    names = [piece for piece, _, _ in pieces]
    unknown = names.index("<unk>") if "<unk>" in names else next(n for n, piece in enumerate(names) if kinds.get(piece) == 2)
    end = next((n for n, piece in enumerate(names) if piece in ("</s>", "</s>NOTUSED")), -1)
    start = next((n for n, piece in enumerate(names) if piece in ("<s>", "<s>NOTUSED")), -1)
    return replace(model, pieces=pieces, unknown=unknown, start=start, end=end)
