// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit, Row} from "../interfaces/Batch.sol";
import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {Evaluation} from "./Evaluation.sol";
import {Ledger} from "./Ledger.sol";

/// @title The words of a batch: as it is called with, hashed and evaluated
/// @dev Assembly, since a batch does this for every row and credit; mocks/PlainBatchWords.sol is the plain version, and a
/// fuzz test keeps the two equal.
library BatchWords {
    /// @notice The call {IMandateRegistry.settle} with both lists as they came in this one. Encoding them anew would cost more
    /// than the registry's checks of them. Nothing is checked here: the registry and the escrow read every word.
    function encodeSettle(
        address processor,
        Row[] calldata rows,
        Credit[] calldata credits
    ) internal pure returns (bytes memory) {
        bytes calldata rowsRaw = _raw(rows);
        bytes4 selector = IMandateRegistry.settle.selector;
        return
            bytes.concat(
                abi.encodeWithSelector(selector, processor, 0x60, 0x80 + rowsRaw.length, rows.length),
                rowsRaw,
                bytes32(credits.length),
                _raw(credits)
            );
    }

    /// @notice {Evaluation.CREDIT_WORDS} a credit, as they came: for who had them checked before.
    function ofCredits(Credit[] calldata credits) internal pure returns (bytes memory) {
        return _raw(credits);
    }

    /// @notice Room for {Evaluation.ROW_WORDS} a row.
    function allocate(uint256 rows) internal pure returns (bytes memory) {
        return new bytes(rows * Evaluation.ROW_WORDS * 32);
    }

    /// @notice Writes a row with the stored values that it starts from.
    /// @param words from {allocate}, with room for row `index`.
    function write(
        bytes memory words,
        uint256 index,
        Row calldata row,
        uint64 seq,
        uint256 base,
        uint256 policyRoot
    ) internal pure {
        // Whole words, so that nothing stands above the narrow types.
        (uint256 agent, uint256 start) = (uint160(row.agent), seq);
        uint256 packed = Ledger.packRow(row.debit, row.count, seq);
        assembly ("memory-safe") {
            let at := add(add(words, 0x20), mul(index, 0xe0))
            mstore(at, agent)
            mstore(add(at, 0x20), start)
            mstore(add(at, 0x40), base)
            // head, newBase
            calldatacopy(add(at, 0x60), add(row, 0x60), 0x40)
            mstore(add(at, 0xa0), policyRoot)
            mstore(add(at, 0xc0), packed)
        }
    }

    /// @notice The stored seq that a row started from.
    /// @param words where row `index` was written.
    function seqOf(bytes memory words, uint256 index) internal pure returns (uint64) {
        uint256 start;
        assembly ("memory-safe") {
            start := mload(add(add(words, 0x40), mul(index, 0xe0)))
        }
        return uint64(start);
    }

    function _raw(Row[] calldata rows) private pure returns (bytes calldata words) {
        assembly ("memory-safe") {
            words.offset := rows.offset
            words.length := mul(rows.length, 0x120)
        }
    }

    function _raw(Credit[] calldata credits) private pure returns (bytes calldata words) {
        assembly ("memory-safe") {
            words.offset := credits.offset
            words.length := mul(credits.length, 0x40)
        }
    }
}
