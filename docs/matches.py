"""Generator of docs/matches.jpg: what towers find and miss by pixels alone, six languages side by side.

    python docs/matches.py TOWERS docs/matches.jpg

TOWERS is a folder that train.py task=captions wrote. Every eighth sample photo, none of them chosen, is shown with the
sentence that comes first among those of all these photos, language by language: green if it is its own. Where another
comes first, the rank of its own sentence follows. The sentences below were written for this picture. The shares of
photos whose sentence comes first are printed. It needs playwright, chromium on PATH, and fonts of the scripts
(fonts-droid-fallback).
"""

import sys
from html import escape
from pathlib import Path

import numpy as np
from browser import draw, image_tag

from isc.photos.decode import read_image
from isc.photos.folders import SAMPLE
from isc.words.embed_towers import embed_grids, embed_texts
from isc.words.grids import GridNetwork
from isc.words.matcher_files import load_matcher

EVERY = 8
LANGUAGES = ("en", "zh", "ar", "de", "fr", "cs")
SENTENCES = {  # each photo's, in the order of LANGUAGES
    "S000": ("A blue fish with white stripes", "一条有白色条纹的蓝色的鱼", "سمكة زرقاء بخطوط بيضاء",
             "Ein blauer Fisch mit weißen Streifen", "Un poisson bleu à rayures blanches", "Modrá ryba s bílými pruhy"),
    "S008": ("A pink fish on a black background", "黑色背景上的一条粉红色的鱼", "سمكة وردية على خلفية سوداء",
             "Ein rosa Fisch vor schwarzem Hintergrund", "Un poisson rose sur fond noir",
             "Růžová ryba na černém pozadí"),
    "S016": ("A goldfish", "一条金鱼", "سمكة ذهبية", "Ein Goldfisch", "Un poisson rouge", "Zlatá rybka"),
    "S024": ("Small fish swim above the sand", "小鱼在沙子上面游泳", "أسماك صغيرة تسبح فوق الرمل",
             "Kleine Fische schwimmen über dem Sand", "De petits poissons nagent au-dessus du sable",
             "Malé ryby plavou nad pískem"),
    "S032": ("The ruin of a large round theatre", "一座巨大的圆形剧场的废墟", "أطلال مسرح دائري كبير",
             "Die Ruine eines großen runden Theaters", "Les ruines d'un grand théâtre rond",
             "Zřícenina velkého kruhového divadla"),
    "S040": ("A church with red towers beside a street", "街道旁一座有红色塔楼的教堂", "كنيسة بأبراج حمراء بجانب شارع",
             "Eine Kirche mit roten Türmen neben einer Straße", "Une église aux tours rouges près d'une rue",
             "Kostel s červenými věžemi vedle ulice"),
    "S048": ("A palace with bright lights at night", "夜晚灯火通明的宫殿", "قصر مضاء في الليل",
             "Ein hell beleuchteter Palast in der Nacht", "Un palais illuminé la nuit", "Osvětlený palác v noci"),
    "S056": ("A house made of snow under a blue sky", "蓝天下用雪做的房子", "بيت من الثلج تحت سماء زرقاء",
             "Ein Haus aus Schnee unter blauem Himmel", "Une maison de neige sous un ciel bleu",
             "Dům ze sněhu pod modrou oblohou"),
    "S064": ("Water rushes out of a high dam", "水从高高的水坝里涌出", "الماء يتدفق من سد عال",
             "Wasser schießt aus einer hohen Staumauer", "L'eau jaillit d'un haut barrage",
             "Voda tryská z vysoké přehrady"),
    "S072": ("Boxes with open lids stand on the pavement", "人行道上放着打开盖子的箱子", "صناديق مفتوحة على الرصيف",
             "Kisten mit offenen Deckeln stehen auf dem Gehweg", "Des boîtes ouvertes sur le trottoir",
             "Otevřené bedny stojí na chodníku"),
    "S080": ("A wooden windmill in a dry field", "干枯田野里的一座木制风车", "طاحونة هواء خشبية في حقل جاف",
             "Eine Windmühle aus Holz auf einem trockenen Feld", "Un moulin à vent en bois dans un champ sec",
             "Dřevěný větrný mlýn na suchém poli"),
    "S088": ("A black windmill seen from below", "从下面看到的一座黑色风车", "طاحونة هواء سوداء من الأسفل",
             "Eine schwarze Windmühle von unten gesehen", "Un moulin à vent noir vu d'en bas",
             "Černý větrný mlýn při pohledu zdola"),
    "S096": ("A red tape measure on a white table", "白色桌子上的一把红色卷尺", "شريط قياس أحمر على طاولة بيضاء",
             "Ein rotes Maßband auf einem weißen Tisch", "Un mètre ruban rouge sur une table blanche",
             "Červený svinovací metr na bílém stole"),
    "S104": ("A screwdriver with a black handle", "一把黑色手柄的螺丝刀", "مفك براغي بمقبض أسود",
             "Ein Schraubenzieher mit schwarzem Griff", "Un tournevis à manche noir", "Šroubovák s černou rukojetí"),
    "S112": ("A koala sits in a tree", "一只考拉坐在树上", "كوالا يجلس على شجرة", "Ein Koala sitzt auf einem Baum",
             "Un koala est assis dans un arbre", "Koala sedí na stromě"),
}  # fmt: skip


def main() -> None:
    model, shape = load_matcher(Path(sys.argv[1]))
    network = GridNetwork(shape)
    photos = {name: read_image(SAMPLE / f"{name}.jpg") for name in SENTENCES}
    assert sorted(photos) == [path.stem for path in sorted(SAMPLE.glob("*.jpg"))[::EVERY]]
    pictures = embed_grids(model, np.concatenate([network.grids([photo]) for photo in photos.values()]))
    lines: list[list[str]] = [[] for _ in photos]
    first = {}
    for place, language in enumerate(LANGUAGES):
        said = [sentences[place] for sentences in SENTENCES.values()]
        cosines = pictures @ embed_texts(model, said).T
        ranks = 1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1)
        first[language] = f"{(ranks == 1).sum()} of {len(said)}"
        for at, rank in enumerate(ranks):
            right, more = ("right", "") if rank == 1 else ("wrong", f" <small>own: {rank}</small>")
            shown = escape(said[int(cosines[at].argmax())])
            lines[at].append(f'<p dir="auto" lang="{language}" class="{right}">{shown}{more}</p>')
    figures = zip(photos.values(), lines, strict=True)
    draw("".join(f"<figure>{image_tag(photo)}{''.join(texts)}</figure>" for photo, texts in figures), Path(sys.argv[2]))
    print(", ".join(f"{language} {share}" for language, share in first.items()))


if __name__ == "__main__":
    main()
