// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {IMandateRegistry} from "../interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "../interfaces/IProcessorRegistry.sol";
import {Receipt} from "../interfaces/Messages.sol";
import {ReceiptedPayment} from "../interfaces/ReceiptedPayment.sol";
import {StrictECDSA} from "./StrictECDSA.sol";
import {TypedHashes} from "./TypedHashes.sol";

/// @title Both signatures of a payment
/// @notice The agent's alone would let a stolen key drain the lock, the processor's alone would let it invent debits.
library ReceiptedPayments {
    error UnknownMandate(address agent);
    /// @notice The receipt promises more than the settle-by window after the last second in which it can be in good faith:
    /// one acknowledgement window after the mandate's end, while processor and payee may not know of it yet.
    error SettleByTooLate(address agent, uint256 settleBy, uint256 latest);
    /// @notice `key` signs no receipts of the processor that settle by then.
    error NotAReceiptKey(address processor, address key, uint256 settleBy);
    error ClaimWindowOver(address agent, uint256 time, uint256 claimsUntil);

    struct Context {
        address processor;
        address token;
        uint64 settled;
        uint40 claimsUntil;
        bool abandoned;
    }

    /// @notice Checks a payment and says how its mandate stands.
    function verify(
        IMandateRegistry registry,
        IProcessorRegistry processors,
        ReceiptedPayment calldata payment
    ) internal view returns (Context memory) {
        return verify(registry, processors, payment, 0);
    }

    /// @notice The same, until `longer` seconds after the claim window.
    function verify(
        IMandateRegistry registry,
        IProcessorRegistry processors,
        ReceiptedPayment calldata payment,
        uint40 longer
    ) internal view returns (Context memory context) {
        uint40 endedAt;
        address agent = payment.agent;
        (context.processor, context.token, context.settled, endedAt, context.claimsUntil, context.abandoned) = registry
            .claimsOf(agent);
        if (context.processor == address(0)) revert UnknownMandate(agent);
        uint256 until = context.claimsUntil + longer;
        if (block.timestamp > until) revert ClaimWindowOver(agent, block.timestamp, until);
        IMandateRegistry.Windows memory windows = registry.windows();
        uint256 latest = uint256(endedAt) + windows.acknowledge + windows.settleBy;
        if (payment.settleBy > latest) revert SettleByTooLate(agent, payment.settleBy, latest);

        bytes32 separator = registry.domainSeparator();
        bytes32 lineHash = TypedHashes.hashLine(payment.line);
        bytes32 structHash = TypedHashes.hashPayment(payment.seq, payment.spent, uint256(payment.head), lineHash);
        StrictECDSA.requireSigner(
            agent,
            MessageHashUtils.toTypedDataHash(separator, structHash),
            payment.agentSignature
        );
        requireReceipt(processors, separator, context.processor, receiptOf(payment), payment.processorSignature);
    }

    /// @notice Refuses a receipt that the processor's key did not sign.
    function requireReceipt(
        IProcessorRegistry processors,
        bytes32 separator,
        address processor,
        Receipt memory receipt,
        bytes calldata signature
    ) internal view {
        bytes32 digest = MessageHashUtils.toTypedDataHash(separator, TypedHashes.hashReceipt(receipt));
        (address key, , ) = ECDSA.tryRecoverCalldata(digest, signature);
        if (key == address(0) || !processors.isReceiptKey(processor, key, receipt.settleBy)) {
            revert NotAReceiptKey(processor, key, receipt.settleBy);
        }
    }

    /// @notice The same payment has one id, whatever time its receipt promises.
    function idOf(ReceiptedPayment calldata payment) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    payment.agent,
                    payment.seq,
                    payment.head,
                    payment.line.payee,
                    payment.line.amount,
                    payment.line.ref
                )
            );
    }

    function receiptOf(ReceiptedPayment calldata payment) internal pure returns (Receipt memory) {
        return
            Receipt(
                payment.agent,
                payment.seq,
                payment.line.payee,
                payment.line.amount,
                payment.line.ref,
                payment.head,
                payment.settleBy,
                payment.logIndex
            );
    }
}
