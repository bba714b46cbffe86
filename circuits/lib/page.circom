// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "poseidon.circom";

// The hash of one page of a ledger: Poseidon(prev, line_1 … line_7, salt). An unused line is 0.
template PageHash() {
    signal input prev;
    signal input line[7];
    signal input salt;
    signal output out;

    component hash = Poseidon(9);
    hash.inputs[0] <== prev;
    for (var j = 0; j < 7; j++) {
        hash.inputs[1 + j] <== line[j];
    }
    hash.inputs[8] <== salt;
    out <== hash.out;
}
