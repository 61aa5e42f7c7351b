"""Speech from nothing: spoken digit strings by a source-filter synthesizer.

    file              from                      to
    phones.py                                   the words, and a recipe for each phone
    speakers.py       seed, split, number       a voice, a room, a microphone
    articulation.py   words, speaker            phones in time; tracks of formants and sources
    voice.py          tracks, speaker           clean speech: glottal pulses through formants
    resonator.py                                the filters that voice.py is built of
    scene.py          clean speech, speaker     a recording: echo, noise, 16-bit samples
    corpus.py         seed, sizes               a folder of recordings with exact alignments

Every utterance is a function of (seed, split, number), so ranks share the work as they like.
The chapter on it is docs/synthesizer.md.
"""

from refimpl.tasks.acoustic.synth.corpus import Utterance, corpus_plan, synthesize, write_corpus
from refimpl.tasks.acoustic.synth.phones import LEXICON, PHONES

__all__ = ["LEXICON", "PHONES", "Utterance", "corpus_plan", "synthesize", "write_corpus"]
