"""Speech: from recordings in Kaldi's data directories to frame and word error rates.

    file          from                              to
    settings.py                                     every choice, with its default
    wav.py        a wav file                        samples
    text.py       a text file                       numbered lines, fields
    kaldi.py      a data directory                  utterances: speaker, words, where, alignment
    lexicon.py    lexicon.txt                       each word's phones
    frontend.py   samples                           log-mel energies, normalised
    features.py   utterances, many ranks, a cache   log-mel energies of all of them
    examples.py   frame numbers                     spliced inputs and their targets
    hmm.py        phones                            states; exact and flat-start targets; priors
    targets.py    transcribed utterances            checked; a state for each of their frames
    fingerprint.py  files, many ranks               are they the same everywhere?
    corpus.py     data directories, a lexicon       normalised frames with first targets
    discriminant.py  frames, targets                a linear first model
    align.py      likelihoods, words                the best path of states
    decode.py     likelihoods                       words
    score.py      words said and heard              S, D, I and the word error rate
    posteriors.py  frames, network, many ranks      log p(state | frame)
    recogniser.py  log p(state | frame)             new targets, words, scores
    saved.py      corpus, recogniser                what is saved with a run, and back
    task.py       all of these                      what the trainer sees
    synth/        a seed                            a corpus to try it on

The chapter on it is docs/acoustic.md.
"""
