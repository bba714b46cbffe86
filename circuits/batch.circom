// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "lib/commitment.circom";
include "lib/policy.circom";
include "lib/segment.circom";

// Batch(S, G): the rows of a batch, in S segments of G pages of 7 lines.
//
// A row is one mandate's part of the batch. It takes one segment, or several in a row when it needs more than 7·G line
// slots. Segments that belong to no row are idle; they change nothing, wherever they stand.
//
// STATEMENT. There are rows and lines such that
//   1. flags are boolean; the settled lines of a row are contiguous, after the `offset` lines of its first page that were
//      settled before; a segment that continues in the next one is full, and the next one is active, skips nothing and
//      has the same base and policy;
//   2. every settled line has 1 <= amount <= cap < 2^40;
//   3. every settled line's payee is in the list of the row's policyRoot = Poseidon(allow_0 … allow_7, cap), or that
//      list is open (allow_0 = 0);
//   4. the pages hash from `base` to `head`, where line = payee + amount·2^160 and an unused line is 0; `newBase` is
//      `head` if the last page is full, else the hash of the page before it (or `base`);
//   5. C commits to base, head, newBase, policyRoot and debit + count·2^96 + offset·2^128 of every segment, and to
//      every amount;
//   6. T = E + Σ amount / (z + payee) over all settled lines, where E is Horner's evaluation at z of the five values of
//      each finished row, from 1.
//
// WHAT IT MEANS. The contract derives z from C, its own rows and its own credits, and checks T against them. Everything
// that T depends on is fixed by C before z is known: the amounts directly, the payees through head, line and amount. So
// T agrees only if, as functions of z, the rows are the contract's (the polynomial part; the leading 1 binds their
// number) and for each payee the settled amounts sum up to its credit (the partial fractions; amounts are positive and
// below 2^40, so no sum vanishes). A payee is not range-checked here: one that is no address has no credit that matches.
//
// PUBLIC   T (output), C (output), z                                                            field elements, so ordered
// PRIVATE  base[S], allow[S][8], salt[S][G], payee[S][7G]                                       field elements
//          cap[S], amount[S][7G]                                                                40 bits
//          continues[S], last[S][7G], skip[S][6]                                                1 bit
template Batch(S, G) {
    var L = 7 * G;
    var STREAM = 5 * S + (S * L + 5) \ 6;
    signal input z;
    signal input base[S];
    signal input cap[S];
    signal input allow[S][8];
    signal input continues[S];
    signal input last[S][L];
    signal input skip[S][6];
    signal input salt[S][G];
    signal input payee[S][L];
    signal input amount[S][L];
    signal output T;
    signal output C;

    component policy[S];
    component segment[S];
    component amounts = PackAmounts(S * L);
    component commitment = Commitment(STREAM);
    signal start[S];
    signal carried[S];
    signal finished[S];
    signal horner[S][5];
    signal gained[S];

    var evaluation = 1;
    var sum = 0;
    for (var s = 0; s < S; s++) {
        policy[s] = Policy();
        policy[s].cap <== cap[s];
        for (var k = 0; k < 8; k++) {
            policy[s].allow[k] <== allow[s][k];
        }

        // Clause 4: a continued row goes on where the segment before ended.
        if (s == 0) {
            start[s] <== base[s];
            carried[s] <== 0;
        } else {
            start[s] <== base[s] + continues[s - 1] * (segment[s - 1].head - base[s]);
            carried[s] <== continues[s - 1] * commitment.in[5 * (s - 1) + 4];
        }

        segment[s] = Segment(G);
        segment[s].z <== z;
        segment[s].start <== start[s];
        segment[s].cap <== cap[s];
        segment[s].restricted <== policy[s].restricted;
        for (var k = 0; k < 8; k++) {
            segment[s].allow[k] <== allow[s][k];
        }
        for (var j = 0; j < 6; j++) {
            segment[s].skip[j] <== skip[s][j];
        }
        for (var g = 0; g < G; g++) {
            segment[s].salt[g] <== salt[s][g];
        }
        for (var i = 0; i < L; i++) {
            segment[s].last[i] <== last[s][i];
            segment[s].payee[i] <== payee[s][i];
            segment[s].amount[i] <== amount[s][i];
            amounts.amount[s * L + i] <== amount[s][i];
        }

        // Clause 1: continuation. No two skip flags are set, so an offset of 0 means that nothing is skipped.
        continues[s] * (1 - continues[s]) === 0;
        continues[s] * (1 - segment[s].full) === 0;
        if (s > 0) {
            continues[s - 1] * (1 - segment[s].active) === 0;
            continues[s - 1] * segment[s].offset === 0;
            continues[s - 1] * (base[s] - base[s - 1]) === 0;
            continues[s - 1] * (policy[s].root - policy[s - 1].root) === 0;
        }

        // Clause 5: the row so far.
        commitment.in[5 * s] <== base[s];
        commitment.in[5 * s + 1] <== segment[s].head;
        commitment.in[5 * s + 2] <== segment[s].newBase;
        commitment.in[5 * s + 3] <== policy[s].root;
        commitment.in[5 * s + 4] <== carried[s] + segment[s].debit + segment[s].count * (1 << 96) + segment[s].offset * (1 << 128);

        // Clause 6: a row counts where it ends.
        finished[s] <== segment[s].active * (1 - continues[s]);
        var value = evaluation;
        for (var v = 0; v < 5; v++) {
            horner[s][v] <== value * z + commitment.in[5 * s + v];
            value = horner[s][v];
        }
        gained[s] <== finished[s] * (horner[s][4] - evaluation);
        evaluation += gained[s];
        sum += segment[s].sum;
    }
    continues[S - 1] === 0;

    for (var m = 0; m < (S * L + 5) \ 6; m++) {
        commitment.in[5 * S + m] <== amounts.out[m];
    }
    C <== commitment.out;
    T <== evaluation + sum;
}
