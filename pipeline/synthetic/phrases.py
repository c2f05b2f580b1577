"""The material of the letters in pipeline/synthetic/letters.py: {slots} with their options, and sentences with their variants.

The facts of the condition ({definition}, {symptoms}, …) and its {name} are slots too. Variants of a sentence, separated by
" | ", have the same meaning: a letter has at most one of them.
"""

from collections.abc import Sequence


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()).split(", "))


TIMES = _split_list("""
    once a day, twice a day, three times a day, every second day, before meals, after meals, at bedtime
""")
# Invented brand names, 40 × 40 of them, so that each is as rare as those in real letters.
MEDICINES = tuple(
    start + end
    for start in _split_list("""
        Abro, Acti, Alve, Ampi, Bexa, Beta, Calo, Cefo, Clari, Dexo, Dilo, Dura, Eno, Epla, Febu, Flexi, Gaba, Glyco,
        Hista, Ibra, Keto, Lano, Levo, Mero, Metro, Nebi, Nova, Olme, Oxa, Panto, Pira, Quino, Rani, Rosu, Serta, Tami,
        Tora, Vala, Xelo, Zola
    """)
    for end in _split_list("""
        bax, can, cef, cid, cor, dex, dine, dol, fen, fer, gard, gesic, lan, lax, lex, lin, lium, lol, max, med, mide,
        min, mox, nac, nex, nil, pril, quin, ran, rex, ril, sone, statin, tab, tan, tidine, vir, xin, zine, zole
    """)
)
TESTS = _split_list("""
    complete blood count, ultrasound of the abdomen, chest x-ray, liver function test, kidney function test, thyroid
    profile, fasting lipid profile, urine routine, urine culture, ECG, echocardiogram, MRI, CT scan, stool
    examination, fasting blood sugar, HbA1c, vitamin D level, vitamin B12 level, skin biopsy, allergy panel, ESR and
    CRP, sleep study, endoscopy, nerve conduction study, bone density scan
""")
EVENTS = _split_list("""
    a long flight, moving house, my last pregnancy, a bad cold, a fall on the stairs, changing my job, a week of
    fever, starting at the gym, a dental treatment, an operation, a holiday by the sea, a car accident, giving up
    smoking, the death of a friend, night shifts, a change of diet, a course of antibiotics, a stomach infection, a
    vaccination, a very hot summer, examination stress, a sprained ankle, a trip abroad, the birth of our child
""")
RELATIVES = _split_list("""
    mother, father, son, daughter, wife, husband, sister, brother, uncle, grandmother
""")
SPECIALISTS = _split_list("""
    neurologist, dermatologist, sexologist, general surgeon, general practitioner, dentist, cardiologist,
    pediatrician, psychiatrist, diabetologist, gastroenterologist, nephrologist, pulmonologist, radiologist,
    rheumatologist, hematologist
""")
SLOTS: dict[str, Sequence[int | float | str]] = {
    "age": range(18, 82),
    "older": range(24, 90),
    "weight": range(45, 121),
    "height": range(150, 196),
    "days": range(3, 28),
    "weeks": range(2, 30),
    "months": range(2, 24),
    "years": range(2, 25),
    "hours": range(2, 11),
    "review": range(5, 45),
    "dose": (2.5, 5, 10, 20, 25, 40, 50, 75, 100, 120, 150, 200, 250, 300, 400, 500, 650),
    "amount": (5, 10, 15, 20, 30, 50, 60, 80, 100, 125, 250, 400, 600, 800, 1000),
    "often": TIMES,
    "times": TIMES,
    "medicine": MEDICINES,
    "remedy": MEDICINES,
    "drug": MEDICINES,
    "test": TESTS,
    "scan": TESTS,
    "check": TESTS,
    "event": EVENTS,
    "relative": RELATIVES,
    "specialist": SPECIALISTS,
    "fever": tuple(tenths / 10 for tenths in range(990, 1040)),
    "pulse": range(58, 125),
    "systolic": range(98, 180),
    "diastolic": range(60, 110),
    "sugar": range(74, 320),
    "hemoglobin": tuple(tenths / 10 for tenths in range(78, 165)),
    "grade": range(2, 10),
    "minutes": range(10, 65, 5),
    "litres": (1.5, 2, 2.5, 3, 3.5),
    "time": _split_list("in the morning, at night, after lunch, in the evening, when I wake up, at work, on weekends"),
    "place": ("Delhi", "Leeds", "Chennai", "Toronto", "Perth", "Lagos", "Austin", "Dubai", "Cork", "Nairobi", "Pune"),
    "work": ("a teacher", "a driver", "a student", "a nurse", "a farmer", "a cook", "a clerk", "retired", "a welder"),
}

LABS = _split_list("""
    ferritin, TSH, T3, T4, ALT, AST, LDL, HDL, CRP, ESR, sodium, potassium, calcium, phosphate, creatinine, urea, uric acid,
    albumin, bilirubin, lipase, amylase, cortisol, prolactin, insulin, folate, zinc, magnesium, vitamin D, vitamin B12,
    platelets, leukocytes, lymphocytes, eosinophils, triglycerides, lactate, copper, ammonia, renin, LH, FSH, estradiol,
    testosterone, PSA, D-dimer, troponin, fibrinogen, transferrin, homocysteine
""")
FOODS = _split_list("""
    apples, bananas, beans, beef, beetroot, berries, bread, broccoli, butter, cabbage, carrots, cashews, celery, cheese,
    chicken, chickpeas, chili, chocolate, coconut, coffee, corn, cream, cucumber, curd, dates, eggs, figs, fish, garlic,
    ginger, grapes, honey, ice cream, jam, kale, lamb, lemons, lentils, lettuce, mango, melon, milk, mint, mushrooms,
    mustard, noodles, nuts, oats, okra, olives, onions, oranges, papaya, pasta, pears, peas, pepper, pickles, pineapple,
    plums, porridge, potatoes, pumpkin, radish, raisins, rice, salmon, sausages, sesame, shrimps, soda, soup, soy, spinach,
    sprouts, sweets, tea, tofu, tomatoes, tuna, turkey, turmeric, vinegar, walnuts, wheat, yams, yeast, yogurt, zucchini
""")
BODY = _split_list("""
    abdomen, ankle, arm, armpit, back, belly, breast, calf, cheek, chest, chin, ear, elbow, eye, finger, flank, foot,
    forearm, forehead, groin, hand, heel, hip, jaw, knee, leg, lip, loin, neck, nose, palm, rib, scalp, shin, shoulder,
    sole, temple, thigh, throat, thumb, toe, tongue, wrist
""")
# Slots of two to seven items, each with an amount. No two rows enumerate the same, which makes them distinct.
LISTS: dict[str, tuple[Sequence[str], str]] = {
    "foods": (FOODS, ""),
    "snacks": (FOODS, ""),
    "meals": (FOODS, ""),
    "places": (BODY, ""),
    "spots": (BODY, ""),
    "labs": (LABS, " %d"),
    "values": (LABS, " %d"),
    "levels": (LABS, " %d"),
    "drugs": (MEDICINES, " %d mg"),
    "pills": (MEDICINES, " %d mg"),
    "brands": (MEDICINES, " %d mg"),
}

# A case in one line, and a question about it: the Description, which the patient repeats.
LEADS = """
I have {name}.
{name} at {age}.
{name} with {other}.
{name} after {event}.
{name} despite {medicine}.
On {medicine} for {name}.
{weeks} weeks of {name}.
Still {name} after {days} days.
I am {age} and have {name}.
I have had {name} for {weeks} weeks.
I have {name} {time}.
My {relative} ({age}) has {name}.
My {relative} has {name} and takes {medicine}.
I, {work} of {age}, have {name}.
Can {medicine} cause {name}?
Can {other} turn into {name}?
Is it {name} or {other}?
Is {medicine} {dose} mg right for {name}?
Does {name} show in a {test}?
What helps against {name} {time}?
Why does {name} return after {weeks} weeks?
Can {name} come from {event}?
My {age} year old {relative} suffers from {name}.
I got {name} {weeks} weeks after {event}.
I take {medicine} {dose} mg for {name}.
{medicine} has not helped my {name} in {weeks} weeks.
Suffering from {name} for {months} months and taking {medicine}.
My {test} was normal but I still think of {name}.
My {test} points to {name} after {event}.
After {event} my {relative} was told of {name}.
Doctors say that I have {name} with a sugar of {sugar}.
My {name} is back {months} months after {event}.
I am {age}, weigh {weight} kg and was found to have {name}.
Diagnosed with {name} {years} years ago, now on {medicine} and {remedy}.
With {name} my blood pressure is {systolic} over {diastolic}.
I feel my {name} worst {time}, for about {hours} hours.
My {relative} of {age} stopped {medicine} and the {name} came back.
I have {name} and also {other}.
First it was {other}, and since {event} it is {name}.
My {relative} had {other} at {age}, and now I have {name}.
Having {name} since {event}, {medicine} {often} does nothing.
The {test} shows {name} and the {scan} is clear.
I fear {name} because my {relative} died of it at {older}.
My doctor treats me for {other}, but I think it is {name}.
Fever of {fever} for {days} days and a history of {name}.
My hemoglobin is {hemoglobin} and I was told it is {name}.
I live with {name} in {place} and work as {work}.
My heart beats {pulse} times a minute since I have {name}.
"""
ASKS = """
What should I do?
Please help.
Is it serious?
Can it be cured?
Is it {other}?
Is {drug} safe?
Or {other}?
Stop {drug}?
Is {drug} {amount} mg enough?
Does {drug} help?
Wait {review} days?
Only {drug}?
Why is this happening?
Which test do I need?
Should I have {check} done?
Can I go on with {drug}?
Is {drug} {amount} mg safe for me?
Could {drug} be the reason?
Is it safe to take {drug} with {remedy}?
How long will it last?
Will it go away within {review} days?
Can this lead to {other}?
Do I need {drug} or only rest?
Is {amount} mg of {drug} {times} too much?
Can I travel to {place} in {review} days?
Is a {grade} out of ten on the pain scale normal?
Should I see a {specialist} or wait {review} days?
Can I exercise for {minutes} minutes a day?
Is a second {check} needed after {review} days?
Can my {relative} catch it from me?
Does the {check} tell {name} from {other}?
What does a {specialist} do about it?
Could it be from {other} that I had at {older}?
May I drink {litres} litres of water a day with it?
Is there anything better than {drug}?
"""

GREETINGS = ("Hello doctor,", "Hi doctor,", "Hello,", "Dear doctor,", "Respected doctor,", "Hi,", "Good day doctor,")
WISHES = (
    "Please help.",
    "Kindly advise.",
    "I am worried.",
    "Thank you.",
    "Please reply soon.",
    "Thanks in advance.",
    "",
)
STORY = """
In the last report {labs} were marked. | They measured {labs} in my blood.
I take {pills} every day. | My medicines are {pills}.
The pain moves between {places}. | I feel it in {places}.
I eat {foods} most of the days. | My diet is {foods}.
I am {age} years old, {height} cm tall and weigh {weight} kg. | I am {age}, my weight is {weight} kg and my height {height} cm.
I am {work} from {place}. | I live in {place}, where I am {work}.
It began {weeks} weeks ago, just after {event}. | All of it started with {event} about {weeks} weeks back.
What I notice most is {symptoms}. | My complaints are {symptoms}. | At present I have {symptoms}.
At first there was nothing but tiredness, and then came {symptoms}. | Since {days} days there has been {symptoms}.
The doctor here in {place} prescribed {medicine} {dose} mg {often}. | I was given {medicine} {dose} mg to be taken {often}.
I also take {remedy} {amount} mg {times} for {other}. | For {other} I have been on {remedy} {amount} mg {times}.
My {test} was done {days} days ago and was reported as normal. | The {test} of last month showed nothing new.
The {scan} showed something that nobody explained to me. | They did a {scan}, and the report says that I should come again.
My blood pressure this morning was {systolic}/{diastolic}. | The nurse measured {systolic}/{diastolic} as my blood pressure.
My fasting sugar is {sugar} and hemoglobin {hemoglobin}. | In the last report sugar was {sugar}, hemoglobin {hemoglobin}.
My pulse goes up to {pulse} when I climb the stairs. | Even at rest my heart beats {pulse} times a minute.
I had a fever of {fever} for {days} days, which is gone now. | On some days my temperature rises to {fever}.
On a scale of ten I would call the pain {grade}. | The pain is about {grade} out of ten and does not let me sleep.
It is worst {time} and lasts for about {hours} hours. | Each time it stays for {hours} hours, mostly {time}.
My {relative} had {other} at the age of {older}. | There is {other} in the family, my {relative} has it.
I was treated for {other} {years} years ago. | Some {years} years back I had {other}, from which I recovered fully.
I do not smoke and drink very seldom. | I used to smoke {grade} cigarettes a day until {months} months ago.
I have been reading about {name} on the internet and it frightened me. | The internet says that it may be {name}.
A friend told me that {treatment} would be the right thing. | I have heard of {treatment}, but nobody offered it to me.
I tried to {self_care}, but it did not make much of a difference. | For {days} days I did as told: {self_care}.
Some say that it comes from {cause}. | Could it be due to {cause}?
Is it right that I must hurry if {urgent}? | I was told to come at once if {urgent}.
My sleep is poor, no more than {hours} hours a night. | I wake up after {hours} hours and cannot fall asleep again.
I have lost {grade} kg in the last {months} months without trying. | My weight went up by {grade} kg in {months} months.
My appetite is normal and so is digestion. | I do not feel hungry at all and often feel bloated.
I had to stay away from work for {days} days. | My employer has given me {days} days of leave because of it.
We have been married for {years} years and have two children. | I live alone and have nobody to ask.
The {specialist} whom I saw first spoke of {other}. | One {specialist} thought of {other}, another one did not.
I have stopped {drug} since it upset my stomach. | I could not bear {drug}, it made me sick within {minutes} minutes.
I am allergic to {drug} as far as I know. | I know of no allergy, except that {drug} once gave me a rash.
Now I walk {minutes} minutes every day. | I used to run {minutes} minutes each morning, which I cannot do any more.
I drink about {litres} litres of water a day. | My water intake is {litres} litres daily, and my diet is vegetarian.
It went away for {weeks} weeks and then returned stronger than before. | For {months} months all was well, then it came back.
My {relative} says that I worry too much. | Everybody in the family is worried, my {relative} most of all.
I cannot afford many more tests. | I have already spent a lot on tests, and the {check} alone was very expensive.
Last year I had {check} done and all was fine. | The {check} of {months} months ago was borderline.
There is no blood in stool or urine. | Once, {weeks} weeks ago, I saw a little blood, and never again.
I feel dizzy when I get up quickly. | Standing for more than {minutes} minutes makes me dizzy.
My hands feel numb for some {minutes} minutes {time}. | There is a strange tingling in my feet {time}.
I have had a dry cough as well for {days} days. | A cough came with it, which took {days} days to settle.
My mood is low and I cry without reason. | I have become anxious, and my heart races at the smallest thing.
The skin looks as always. | There was a rash for {days} days on the chest, which faded by itself.
I was operated on {years} years ago, nothing to do with this. | I never had an operation in my life.
We plan to travel to {place} in {review} days. | In {review} days I have to fly to {place}, and I am afraid of it.
Home remedies from my {relative} did not work. | My {relative} gave me herbal drops for {weeks} weeks, without success.
I work {hours} hours a day in front of a screen. | My job means sitting for {hours} hours without a break.
I attach my reports. | I will send the reports of {check} and {test} if you need them.
"""

OPENINGS = """
Hi. | Hello. | Hi there. | Hello, welcome to our service.
Hello. I have gone through your query and understand your concern. | Hi. I have read your question with diligence.
Hi. I understand your concerns. | Hello. I can understand how worried you must be at {age}.
Hello. Thanks for writing to us about {name}. | Hi. Thank you for the details about your {name}.
Hello. I have seen your {test} report (attachment removed to protect patient identity).
Hi. As per your history of {weeks} weeks, I would think as follows. | Hello. After {weeks} weeks this needs a closer look.
Hello. You have described your problem very well. | Hi. Do not be afraid, this is a common problem.
"""
ADVICE = """
Start with tablet {medicine} {dose} mg {often} for {days} days. | Take {medicine} {dose} mg {often}, for {days} days at first.
You may add {remedy} {amount} mg {times}. | If that does not suffice, {remedy} {amount} mg {times} can be given too.
Please stop {drug} for the time being. | I would leave out {drug} for {days} days and see what changes.
Get a {test} and a {scan} done. | I suggest a {test}, and if that is normal a {scan}.
Repeat the {check} after {review} days. | A second {check} in {review} days will tell us more.
Your blood pressure of {systolic}/{diastolic} should be watched. | Measure your blood pressure {often} and write it down.
A sugar of {sugar} is not what we aim for. | Keep your fasting sugar well below {sugar}.
With a hemoglobin of {hemoglobin} you may feel tired. | Let us bring hemoglobin from {hemoglobin} to the normal range.
Drink {litres} litres of water a day. | {litres} litres of fluid a day will do you good.
Walk for {minutes} minutes daily. | Exercise of {minutes} minutes a day, not too hard, is good for you.
Sleep at least eight hours, and not only {hours}. | {hours} hours of sleep are too few at your age.
A pulse of {pulse} is no reason to worry. | As for the pulse of {pulse}, it comes from being anxious.
If fever goes above {fever}, take {drug}. | A temperature of {fever} needs no treatment, except for plenty of fluids.
Since your {relative} had {other}, I would like to rule it out. | A family history of {other} makes it a little more likely.
It could also be {other}, which looks much the same. | From what you write, {other} is the other possibility.
Your earlier {other} has nothing to do with it. | That you had {other} {years} years ago does not matter any more.
At {age} years, this is not unusual. | It is seen quite often at the age of {age}.
With {weight} kg at {height} cm, some change of weight would help. | Your weight of {weight} kg plays a part in it as well.
Such complaints after {event} settle within {weeks} weeks. | {event}, as you say, may well have brought it about.
Did you notice any change {time}? | Tell me whether it is any better {time}.
Pain of {grade} out of ten asks for something stronger. | I would expect the pain to fall below {grade} within {days} days.
I would not take {drug} and {medicine} together. | {drug} goes well with {medicine}, so you need not worry about that.
The dose of {amount} mg must not be exceeded. | Do not go beyond {amount} mg without asking.
Side effects such as nausea pass within {days} days. | Some feel sleepy at first, for about {days} days.
Avoid tea, coffee and spicy food. | Stay away from alcohol and cigarettes for at least {weeks} weeks.
Eat plenty of fruit and vegetables, and less salt. | A diet with more protein and fewer sweets is what I recommend.
You can go back to work in {days} days. | I would give it {days} days of rest before you work again.
Travelling to {place} is no problem at all. | Put off {place} until you feel better.
Surgery is the last thing to think of. | An operation is needed only if all this fails for {months} months.
A {specialist} should examine you in person. | It is better to be examined by a {specialist} near you.
In most people it gets better within {months} months. | You need patience, since it takes about {months} months.
It may come back, but then it is milder. | A relapse within {years} years is possible, and no cause for alarm.
There is no need to worry about your {relative}. | Your {relative} should have the same test, to be on the safe side.
Stress makes all of it worse. | Try to relax, for instance by breathing exercises of {minutes} minutes {often}.
Warm compresses for {minutes} minutes bring relief. | Use an ice pack for {minutes} minutes whenever it hurts.
Do you have any other illness? | Are you taking any medicine besides {remedy}?
How was your {scan} before all this began? | Please upload the {scan} so that I can see it for myself.
Without an examination it is hard to say more. | I cannot be sure without seeing you.
Your reports are within normal limits. | Nothing in the {test} worries me.
I have seen this in many patients who took {remedy}. | {remedy} for {weeks} weeks is known to do this.
Injections are not needed at this stage. | Injections of {remedy} are kept for severe cases.
Keep a diary of what you eat for {weeks} weeks. | For {weeks} weeks note what brings it on.
Ask your pharmacist for a cheaper {drug}. | Any brand of {drug} will do.
Provisional diagnosis: {name}. Differential: {other}. | Probable cause: {cause}.
"""
ENUMERATED = """
Take {drugs} for {days} days. | I would prescribe {drugs}, for {weeks} weeks at first.
Please stop {pills}, and {remedy} as well. | {pills} should be tapered over {days} days.
If that fails, we have {brands}. | The alternatives are {brands}.
The values {labs} are a little off. | From your report, {labs} need to be followed up.
Let us repeat the tests, since {values} do not fit together. | With {values} I would not think of {other}.
We aim for {levels} within {months} months. | Safe levels for you are {levels}.
Avoid {foods} for {weeks} weeks. | Leave out {foods}, which may bring it on.
Eat more of {snacks}. | {snacks} are what I recommend to eat.
Have {meals} {time}. | For {time} I suggest {meals}.
Is there any pain in {places}? | Does it spread to {places}?
Please send pictures of {spots}. | I should like to see {spots} from near.
"""
CLOSINGS = """
Hope this helps. | I hope that it helps you. | Take care. | Regards. | Thank you.
Do write to me again in {review} days. | Let me know how you are after {review} days.
Wishing you good health. | Get well soon.
"""
ADVERTISEMENTS = """
For more information consult a {specialist} online --> | For further information consult a {specialist} online -->
For further doubts consult a {specialist} online --> | Revert back with the reports to a {specialist} online -->
Consult a {specialist} online for further clarifications --> | For more information consult your {specialist} online -->
"""
BOILERPLATE = """
Hi. | Hello. | Hi. I have gone through your query with diligence.
Hello. I have read your query. | Hello. I understand your concern.
Hi. I have gone through your query with diligence and would like you to know that I am here to help you.
"""
