// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "../interfaces/Batch.sol";
import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {Ledger} from "../lib/Ledger.sol";

/// @title {BatchWords} without assembly
library PlainBatchWords {
    function encodeSettle(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) internal pure returns (bytes memory) {
        return abi.encodeCall(IMandateRegistry.settle, (processor, rows, credits));
    }

    function ofCredits(Credit[] calldata credits) internal pure returns (bytes memory words) {
        for (uint256 i = 0; i < credits.length; ++i) {
            words = bytes.concat(words, abi.encode(credits[i].payee, credits[i].amount));
        }
    }

    function ofRow(
        Row calldata row,
        uint64 seq,
        uint256 base,
        uint256 policyRoot
    ) internal pure returns (bytes memory) {
        uint256 packed = Ledger.packRow(row.debit, row.count, seq);
        return abi.encode(row.agent, seq, base, row.head, row.newBase, policyRoot, packed);
    }
}
