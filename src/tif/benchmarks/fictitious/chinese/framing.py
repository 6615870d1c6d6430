"""Harmless clauses in Chinese; see `fictitious.framing`."""

from tif.benchmarks.fictitious.language import Frame, Framing, pool

_DOCUMENT_ADJECTIVES = pool(
    """泛黄、破旧、皮面、手写、加注、浸过水、褪色、压花、遗失多年、私人印制、磨损、带插图、翻译过来、匿名、详尽、
    装订简陋、系着丝带、满是折痕、袖珍、发霉、没有署名、考究、学术性、满纸闲话、薄薄、厚重、纪念性、外省、打字机打出、
    字迹模糊""",
    "、",
)
_DOCUMENTS = pool(
    """账簿、公报、年鉴、宣传册、小册子、剪贴簿、目录、简报、日记、卷宗、登记簿、明信片、电报、讣告、专著、手稿、
    通讯、编年史、清单、选集、百科全书、备忘录、节目单、笔录、问卷、相册、传单、脚注、行程表、航海日志""",
    "、",
)
_WITNESS_ADJECTIVES = pool(
    """年迈、健谈、可靠、从前、耐心、善于观察、退休、开朗、多疑、忠诚、疏远、守时、轻声细语、健忘、好问、虔诚、眼尖、
    古怪、博览群书、坦率、粗声粗气、机智、腼腆、老练、富有、和蔼、固执、衣着考究、认真、失眠""",
    "、",
)
_WITNESSES = pool(
    """表亲、女房东、打字员、园丁、摆渡人、唱诗班指挥、理发师、邮局局长、大提琴手、书商、档案员、杂货商、教母、
    传记作者、私人司机、主教、旅店老板、教授、接生婆、补鞋匠、译者、摄影师、棋友、牙医、侄子、花商、簿记员、看门人、
    评论家、清洁工""",
    "、",
)
_ADVERBS = pool(
    """说来奇怪、诚然、众所周知、值得注意的是、幸运的是、据报道、顺便一提、不可否认、看来、当然、显而易见、可喜的是、
    毫无疑问、想来、好在、无可争议的是、坦白说、不出意料、不用说、有趣的是、显然、有据可查、千真万确、实际上、据传、
    可以肯定、令人难忘的是、说白了、的确、看样子""",
    "、",
)
_CROWDS = pool(
    """档案员、朝圣者、学生、邻居、专栏作家、店主、渔民、图书馆员、游客、亲戚、书评人、收藏家、小学生、译者、编辑、
    演员、讲师、路人、猜谜节目主持人、怀疑者、播音员、爱嚼舌根的人、仰慕者、对手、公关人员、孙辈、村民、学者、侍者、印刷工""",
    "、",
)
_VERBS = pool(
    """重提、提起、回忆、复述、转述、讨论、惦记、讲述、争辩、传播、论及、追忆、私下说起、重温、报道、证实、争论、
    调侃、宣扬、强调、打听、谈论、记录、讲解、传颂、吹嘘、笑谈、感叹、琢磨、念叨""",
    "、",
)
_EVENT_ADJECTIVES = pool(
    """烛光下、拥挤、雨中、正式、即兴、电视转播、奢华、喧闹、庄重、公益性、寒风中、春日、月夜、喜庆、冷清、难忘、屋顶上、
    闷热、外地、三小时、迟来、露天、精心排练、混乱、温馨、海滨、座无虚席、吵闹、仲夏、告别""",
    "、",
)
_EVENTS = pool(
    """访谈、讲座、演讲、直播、专题会、研讨会、独奏会、放映会、辩论、竞赛、追悼会、酒会、布道、主题报告、大师课、
    记者会、工作坊、展览、庆典、宴会、招待会、午宴、演出、座谈、对谈、小组讨论、讨论会、朗诵会、彩排、典礼""",
    "、",
)
_MENTIONS = (
    "同一页还预告了{city}的一场书展和《{title}》的朗读会。",
    "同一页还称赞了一位来自{city}、获得{award}的{job}。",
    "下一页讲的是一位学过{subject}、家里有{animal}的{job}。",
    "旁边是{publisher}的{genre}小说广告。",
    "下一页宣布《{title}》入围了{award}。",
    "旁边还有{person}谈论{city}天气的一封信。",
)


def apply(frame: Frame, template: str) -> str:
    """An answer template with a clause before it or a short sentence after it."""
    match frame.kind:
        case "adverb":
            return f"{frame.words[0]}，{template}"
        case "document":
            return f"据{frame.words[0]}的{frame.words[1]}记载，{template}"
        case "witness":
            return f"据一位{frame.words[0]}的{frame.words[1]}所说，{template}"
        case "crowd":
            return f"{template}许多{frame.words[0]}至今仍在{frame.words[1]}这件事。"
        case "event":
            return f"{template}很多读者是在一场{frame.words[0]}的{frame.words[1]}上知道这件事的。"
    raise ValueError(f"no clause of the kind {frame.kind!r}")


FRAMING = Framing(
    adverbs=_ADVERBS,
    documents=(_DOCUMENT_ADJECTIVES, _DOCUMENTS),
    witnesses=(_WITNESS_ADJECTIVES, _WITNESSES),
    crowds=(_CROWDS, _VERBS),
    events=(_EVENT_ADJECTIVES, _EVENTS),
    remark="很多读者都知道",
    apply=apply,
    mentions=_MENTIONS,
    append=lambda text, sentence: text + sentence,
)
