// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Line, Mandate, Receipt} from "../interfaces/Messages.sol";

/// @title EIP-712 struct hashes of the signed messages
/// @dev The domain is the MandateRegistry's. docs/spec/encoding.md holds the types, test/vectors an example of each.
library TypedHashes {
    bytes32 internal constant MANDATE_TYPEHASH = keccak256(
        "Mandate(address owner,address agent,address token,uint64 budget,uint40 paymentCap,uint64 validUntil,"
        "address processor,address[] payees,bytes32 policyRoot,bytes32 termsHash)"
    );
    bytes32 internal constant LINE_TYPEHASH = keccak256("Line(address payee,uint40 amount,bytes32 ref)");
    bytes32 internal constant PAYMENT_TYPEHASH = keccak256(
        "Payment(uint64 seq,uint64 spent,bytes32 head,Line line)Line(address payee,uint40 amount,bytes32 ref)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256(
        "Receipt(address agent,uint64 seq,address payee,uint40 amount,bytes32 ref,bytes32 head,uint64 settleBy,"
        "uint64 logIndex)"
    );
    bytes32 internal constant REVOCATION_TYPEHASH = keccak256("Revocation(address agent,uint64 afterSeq)");
    bytes32 internal constant CLOSE_TYPEHASH = keccak256("Close(address agent,uint64 seq)");

    function hashMandate(Mandate calldata mandate) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    MANDATE_TYPEHASH,
                    mandate.owner,
                    mandate.agent,
                    mandate.token,
                    mandate.budget,
                    mandate.paymentCap,
                    mandate.validUntil,
                    mandate.processor,
                    hashPayees(mandate.payees),
                    mandate.policyRoot,
                    mandate.termsHash
                )
            );
    }

    /// @notice keccak256 of the payees, 32 bytes each.
    function hashPayees(address[] calldata payees) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(payees));
    }

    function hashLine(Line calldata line) internal pure returns (bytes32) {
        return keccak256(abi.encode(LINE_TYPEHASH, line.payee, line.amount, line.ref));
    }

    /// @param spent a uint64 in the message; one that is wider gives a hash that no message has.
    function hashPayment(uint64 seq, uint256 spent, uint256 head, bytes32 lineHash) internal pure returns (bytes32) {
        return keccak256(abi.encode(PAYMENT_TYPEHASH, seq, spent, head, lineHash));
    }

    function hashReceipt(Receipt memory receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }

    function hashRevocation(address agent, uint64 afterSeq) internal pure returns (bytes32) {
        return keccak256(abi.encode(REVOCATION_TYPEHASH, agent, afterSeq));
    }

    function hashClose(address agent, uint64 seq) internal pure returns (bytes32) {
        return keccak256(abi.encode(CLOSE_TYPEHASH, agent, seq));
    }
}
