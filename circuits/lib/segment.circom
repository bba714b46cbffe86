// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "page.circom";
include "policy.circom";
include "range.circom";

// G pages of one mandate's ledger, from `start` to `head`.
//
//   last[i]   1 at the last used line slot, all 0 in an idle segment
//   skip[j]   1 if j + 1 lines of the first page were settled before, all 0 if none
//
// Both have at most one 1, so the running sums
//   used_i    = Σ_{n >= i} last[n]       (slot i holds a line)
//   skipped_j = Σ_{n >= j} skip[n]       (slot j of the first page was settled before)
// are boolean and fall from 1 to 0 once: used lines are contiguous from the first slot, and so are the settled ones,
// settled = used − skipped, once nothing is skipped that is not used.
template Segment(G) {
    var L = 7 * G;
    signal input z;
    signal input start;
    signal input cap;
    signal input allow[8];
    signal input restricted;
    signal input last[L];
    signal input skip[6];
    signal input salt[G];
    signal input payee[L];
    signal input amount[L];

    signal output active;
    signal output full;
    signal output offset;
    signal output count;
    signal output debit;
    signal output head;
    signal output newBase;
    // Σ amount / (z + payee) over the settled lines.
    signal output sum;

    // Clause 1: flags.
    var used[L + 1];
    used[L] = 0;
    for (var i = L - 1; i >= 0; i--) {
        last[i] * (1 - last[i]) === 0;
        used[i] = used[i + 1] + last[i];
    }
    used[0] * (1 - used[0]) === 0;
    active <== used[0];
    full <== used[L - 1];

    var skipped[8];
    skipped[7] = 0;
    skipped[6] = 0;
    var skips = 0;
    for (var j = 5; j >= 0; j--) {
        skip[j] * (1 - skip[j]) === 0;
        skip[j] * (1 - used[j]) === 0;
        skipped[j] = skipped[j + 1] + skip[j];
        skips += (j + 1) * skip[j];
    }
    skipped[0] * (1 - skipped[0]) === 0;
    offset <== skips;

    component atLeastOne[L];
    component atMostCap[L];
    component allowed[L];
    component page[G];
    signal line[L];
    signal paid[L];
    signal term[L];
    signal toHead[G];
    signal toBase[G];

    var lines = 0;
    var total = 0;
    var terms = 0;
    var prev = start;
    var end = start;
    var base = start;
    for (var g = 0; g < G; g++) {
        page[g] = PageHash();
        page[g].prev <== prev;
        page[g].salt <== salt[g];
        for (var j = 0; j < 7; j++) {
            var i = 7 * g + j;
            var settled = g == 0 ? used[i] - skipped[j] : used[i];

            // Clause 2: used <= amount <= cap. In an unused slot the amount may be anything in range; it is hashed
            // as 0 and pays nothing.
            atLeastOne[i] = InRange(40);
            atLeastOne[i].in <== amount[i] - used[i];
            atMostCap[i] = InRange(40);
            atMostCap[i].in <== cap - amount[i];

            // Clause 3. An unused slot carries any allowed payee.
            allowed[i] = Allowed();
            allowed[i].payee <== payee[i];
            allowed[i].restricted <== restricted;
            for (var k = 0; k < 8; k++) {
                allowed[i].allow[k] <== allow[k];
            }

            // Clause 4: the line as the ledger holds it.
            line[i] <== used[i] * (payee[i] + amount[i] * (1 << 160));
            page[g].line[j] <== line[i];

            // Clause 6: amount / (z + payee), and nothing for a line that is not settled, even where z + payee = 0.
            paid[i] <== settled * amount[i];
            var divisor = z + payee[i];
            term[i] <-- divisor == 0 ? 0 : paid[i] / divisor;
            term[i] * (z + payee[i]) === paid[i];
            term[i] * (1 - settled) === 0;

            lines += settled;
            total += paid[i];
            terms += term[i];
        }
        // Clause 4: the head moves with each page that holds a line, the next base with each full one.
        toHead[g] <== used[7 * g] * (page[g].out - prev);
        toBase[g] <== used[7 * g + 6] * (page[g].out - prev);
        end += toHead[g];
        base += toBase[g];
        prev = page[g].out;
    }
    count <== lines;
    debit <== total;
    sum <== terms;
    head <== end;
    newBase <== base;
}
