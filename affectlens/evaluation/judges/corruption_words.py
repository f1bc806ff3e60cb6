"""Words and signs that corruptions are made of."""

from __future__ import annotations

FEELINGS = tuple(
    word
    for words in (
        "angry furious rage mad hate disgusting gross sick vile fear scared afraid terrified dread",
        "happy joy glad love smile sad cry tears lonely grief surprised wow shocked amazing",
        "suddenly unexpected calm okay",
    )
    for word in words.split()
)

CHAINS = ("-", "–", "—", "_", ".", "*", "!", "?", "...", "#", "/", "~", "=", "|", ":", '"', "'")

JOINING = (
    *("and", "of", "the", "so", "in", "to", "that", "with", "a", "for", "all", "my", "but", "or"),
    *("as", "it", "is", "you", "more"),
)

FOREIGN = tuple(
    word
    for words in (
        "corazón siempre nada porque tristeza mañana también cuando nunca alegría ellos miedo",
        "toujours maison parce peur beaucoup jamais colère avec depuis notre bonheur aujourd'hui",
        "niemals warum Angst Freude zwischen immer Wut vielleicht nicht traurig werden heute",
        "perché sempre paura gioia adesso niente rabbia domani quando insieme loro triste",
        "sempre saudade porque medo alegria nunca raiva ontem também coração eles agora",
        "почему радость всегда страх ничего завтра злость между теперь грусть они",
        "为什么 快乐 愤怒 害怕 今天 没有 我们 なぜ 悲しい 今日 嬉しい 怖い",
        "niçin mutlu korku bugün kızgın hiçbir neden üzgün şimdi her zaman",
    )
    for word in words.split()
)

PREFIXES = ("un", "re", "over", "dis", "anti", "mis", "super", "be")
SUFFIXES = (
    *("ness", "ing", "ed", "ly", "ful", "ish", "ment", "able", "er", "est", "ation", "ity", "s"),
    *("ism", "ously"),
)

MARKUP = (
    *("<|im_start|>", "<|im_end|>", "</s>", "[INST]", "<unk>", "assistant", "user:", "<br/>"),
    *("{{", "}}", "```", "self.", "return", "def", "();", "==", "::", "&nbsp;", "https://"),
    *("<div>", "</p>", "\\n", "###", "[1]", "null", "%s", "var", "=>", "@user", "#tag", "_id"),
)

EMOJI = ("😡", "😱", "😭", "😂", "🤢", "😮", "❤️", "🔥", "✨", "👉", "…", "¡")
