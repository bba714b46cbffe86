// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "lib/page.circom";

// Inclusion(P): one line of a mandate's ledger, in the part that a batch settled, of at most P pages of 7 lines.
//
// STATEMENT. There are pages of lines such that
//   1. exactly one page is the last, and they hash from `base` to `head` through it: head = the hash of that page, each
//      page's hash being the next one's `prev`;
//   2. exactly one slot is chosen, it is number `index`, and it lies on a page up to the last;
//   3. `line` is what stands in that slot, and it is not 0: the slot holds a payment.
//
// WHAT IT MEANS. A batch proved that its pages hash from base to head, page by page, full but for the last. Two different
// ledgers with the same base and head would be a collision of Poseidon, so line number `index` from the first slot after
// `base` is this one in the ledger that was settled. No other line, no salt and no number of pages is revealed.
//
// PUBLIC   base, head, line, index                      field elements, so ordered; line = payee + amount·2^160
// PRIVATE  lines[7P]                                    field elements, 0 where there is none
//          salt[P]                                      field elements
//          last[P], chosen[7P]                          1 bit
template Inclusion(P) {
    var L = 7 * P;
    signal input base;
    signal input head;
    signal input line;
    signal input index;
    signal input lines[L];
    signal input salt[P];
    signal input last[P];
    signal input chosen[L];

    component page[P];
    signal reached[P];
    signal found[L];
    signal inverse;

    var pages = 0;
    var slots = 0;
    var place = 0;
    var reach = 0;
    var value = 0;
    for (var g = 0; g < P; g++) {
        page[g] = PageHash();
        if (g == 0) {
            page[g].prev <== base;
        } else {
            page[g].prev <== page[g - 1].out;
        }
        page[g].salt <== salt[g];

        var onPage = 0;
        for (var j = 0; j < 7; j++) {
            var i = 7 * g + j;
            page[g].line[j] <== lines[i];

            // Clause 3: the chosen slot holds the line.
            chosen[i] * (1 - chosen[i]) === 0;
            found[i] <== chosen[i] * lines[i];
            value += found[i];
            place += i * chosen[i];
            onPage += chosen[i];
        }

        // Clause 1: the hash of the last page is the head.
        last[g] * (1 - last[g]) === 0;
        reached[g] <== last[g] * page[g].out;
        reach += reached[g];

        // Clause 2: the pages before this one do not end the ledger where a slot of this one is chosen.
        onPage * pages === 0;
        pages += last[g];
        slots += onPage;
    }

    pages === 1;
    reach === head;
    slots === 1;
    place === index;
    value === line;
    inverse <-- line != 0 ? 1 / line : 0;
    inverse * line === 1;
}
