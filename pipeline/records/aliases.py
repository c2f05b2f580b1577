"""Names that public datasets and exports use for a task's columns, as `normalize_name` leaves them."""

from itertools import product

# (names of the question, names of the answer): each of the first with each of the second.
QUESTIONS_AND_ANSWERS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("question", "query", "questions", "user question", "customer question", "user query", "question text"),
        ("response", "answer", "answers", "reply", "answer text", "agent answer", "agent response", "agent reply"),
    ),
    (("q",), ("a",)),
    (("questiontext",), ("answertext",)),
    (("title",), ("body",)),
    (("frage", "anfrage", "fragen"), ("antwort", "antworten")),
    (("pregunta", "consulta"), ("respuesta",)),
    (("question",), ("réponse", "reponse")),
    (("domanda",), ("risposta",)),
    (("pergunta",), ("resposta",)),
    (("vraag",), ("antwoord",)),
    (("вопрос",), ("ответ",)),
    (("питання", "запитання"), ("відповідь",)),
    (("pytanie",), ("odpowiedź", "odpowiedz")),
    (("otázka", "otazka"), ("odpověď", "odpoved", "odpoveď")),
    (("soru",), ("cevap", "yanıt")),
    (("fråga",), ("svar",)),
    (("spørgsmål", "spørsmål"), ("svar",)),
    (("kysymys",), ("vastaus",)),
    (("kérdés",), ("válasz",)),
    (("întrebare",), ("răspuns",)),
    (("ερώτηση",), ("απάντηση",)),
    (("问题", "提问", "问"), ("答案", "回答", "答", "答复", "回复")),
    (("問題", "提問", "問"), ("答案", "回答", "答", "答覆", "回覆")),
    (("質問", "問い"), ("回答", "答え", "返答")),
    (("질문",), ("답변", "답", "대답")),
    (("câu hỏi",), ("câu trả lời", "trả lời")),
    (("pertanyaan",), ("jawaban",)),
    (("سؤال", "السؤال"), ("جواب", "الجواب", "إجابة", "الإجابة")),
    (("שאלה",), ("תשובה",)),
    (("प्रश्न", "सवाल"), ("उत्तर", "जवाब")),
    (("คำถาม",), ("คำตอบ",)),
)
# (subjects, messages, replies) of ticket and mail exports: subject and message together are the question.
TICKETS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("subject", "title", "ticket subject", "summary", "short description"),
        (
            "body",
            "description",
            "message",
            "ticket description",
            "ticket body",
            "customer message",
            "content",
            "ticket",
        ),
        (
            *("reply", "answer", "response", "resolution", "solution", "agent reply", "agent response", "agent answer"),
            *("close notes", "resolution notes", "ticket resolution", "support reply", "first reply"),
        ),
    ),
    (
        ("betreff", "titel"),
        ("beschreibung", "nachricht", "text", "anfrage", "inhalt"),
        ("antwort", "lösung", "loesung"),
    ),
    (("asunto", "título"), ("descripción", "descripcion", "mensaje"), ("respuesta", "solución", "solucion")),
    (("objet", "sujet", "titre"), ("description", "message", "demande"), ("réponse", "reponse", "solution")),
    (("oggetto", "titolo"), ("descrizione", "messaggio"), ("risposta", "soluzione")),
    (("assunto", "título"), ("descrição", "mensagem"), ("resposta", "solução")),
    (("onderwerp",), ("omschrijving", "beschrijving", "bericht"), ("antwoord", "oplossing")),
    (("тема",), ("описание", "сообщение", "обращение"), ("ответ", "решение")),
)
OTHER_PAIRS: dict[str, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = {
    "instruction/response": (
        (("instruction", "instructions"), ("answer", "completion", "response", "reply", "outputs")),
    ),
    "prompt/completion": ((("prompt", "prompts"), ("response", "answer", "output", "reply", "completions")),),
    "input/output": (
        (("source",), ("target",)),
        (("input", "inputs"), ("target", "targets", "outputs", "response")),
        (("input text", "source text"), ("output text", "target text")),
        (("dialogue", "document", "article", "text"), ("summary", "highlights")),
    ),
}
CHATS = ("conversations", "conversation", "dialog", "dialogue", "chat", "dialogs", "chat messages")
TEXTS = ("content", "document")

Alternative = tuple[str, ...]  # columns to look for, whose texts together are the task's column
Names = dict[str, tuple[Alternative, ...]]  # the task's column → what may hold it

# The task's optional column → the names to look for. `system` and `history` mean much else outside of instruction data.
SYSTEM = ("system prompt", "system message")
OPTIONAL: dict[str, tuple[str, ...]] = {"input": ("input",), "system": SYSTEM, "tools": ("tools", "functions")}
OF_INSTRUCTIONS: dict[str, tuple[str, ...]] = {"system": ("system", *SYSTEM), "history": ("history",)}
OPTIONAL_OF_TASK = dict.fromkeys(("chat", "alpaca", "instruction/response"), OPTIONAL | OF_INSTRUCTIONS)


def required_aliases(task: str) -> list[dict[str, Alternative]]:
    """Every way to name the required columns of a task; several columns for one are joined."""
    if task == "chat":
        return [{"messages": (name,)} for name in CHATS]
    if task == "text":
        return [{"text": (name,)} for name in TEXTS]
    question, _, answer = task.partition("/")
    pairs = OTHER_PAIRS.get(task, QUESTIONS_AND_ANSWERS if task == "question/answer" else ())
    ways: list[tuple[Alternative, Alternative]] = [((q,), (a,)) for names in pairs for q, a in product(*names)]
    if task == "question/answer":
        for subjects, messages, replies in TICKETS:
            ways += [((subject, message), (reply,)) for subject, message, reply in product(subjects, messages, replies)]
            ways += [((text,), (reply,)) for text, reply in product((*subjects, *messages), replies)]
    return [{question: first, answer: second} for first, second in dict.fromkeys(ways)]
