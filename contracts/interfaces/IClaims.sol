// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMandateRegistry} from "./IMandateRegistry.sol";
import {IProcessorRegistry} from "./IProcessorRegistry.sol";
import {ReceiptedPayment} from "./ReceiptedPayment.sol";

/// @title What payees do when a processor fails
/// @notice A receipt that is not settled when its time and the grace are over is claimed here, with both signatures, by
/// anyone for the payee, many in one call. Filing pays the payee a penalty from the processor's bond at once and starts
/// the cure window, in which the processor may still settle; then anyone resolves the claim: it was settled, or that one
/// mandate goes to Fallback and the lock pays it; what the lock cannot pay takes the whole bond, of which all victims get
/// their share. Nothing here touches a mandate's ledger, so no claim disturbs a batch before the cure window is over.
///
/// A processor that settles each receipt by its settle-by and the grace is never claimed on: what is settled is refused, and
/// so is what still has time. Both signatures are needed: neither the agent and the owner alone, nor a stolen agent key, get
/// anything here. Agent and processor together can claim what no honest payee sold, from that mandate's lock within its cap
/// and list, and beyond it from the bond, as victims beside others: that is why payees bound what they are owed.
interface IClaims {
    enum Status {
        None,
        Filed,
        /// The processor settled the payment number after all.
        Cured,
        /// Paid from the lock, entirely.
        Paid,
        /// What the lock did not pay is the bond's.
        Bonded
    }

    struct Claim {
        Status status;
        /// Whether the lock may pay it, and not only the bond.
        bool fromLock;
        uint40 resolvableAt;
        uint40 amount;
        address payee;
    }

    event ClaimFiled(
        bytes32 indexed id,
        address indexed agent,
        address indexed payee,
        uint64 seq,
        uint40 amount,
        uint40 resolvableAt
    );
    /// @notice `paid` units came from the lock, the rest of it falls on the bond unless it was cured.
    event ClaimResolved(bytes32 indexed id, address indexed agent, Status status, uint64 paid);

    error NoClaims();
    /// @notice The claims of one call are on one processor and token.
    error MixedClaims(address agent, address processor, address token);
    error AlreadyFiled(bytes32 id);
    error NotFiled(bytes32 id);
    /// @notice It is settled: if the ledger contradicts the receipt, challenge it.
    error SettledAlready(address agent, uint64 seq, uint64 settled);
    error NotMissed(address agent, uint64 seq, uint256 time, uint256 claimableAt);
    error NotResolvable(bytes32 id, uint256 time, uint256 resolvableAt);

    /// @notice Files claims. A payment is claimable when its settle-by and the grace are over, or when the processor
    /// settles the mandate no more. The penalty for each that was missed is a tenth of its amount, for its payee, and for
    /// all of them at least 0.50 tokens, the difference for the caller.
    /// @dev Reverts with the errors above or those of {ReceiptedPayments} and {IMandateRegistry.reserveClaim}.
    function file(ReceiptedPayment[] calldata payments) external;

    /// @notice Resolves claims after their cure window. Anyone may call it, with the payments as they were filed; their
    /// signatures are not read again.
    function resolve(ReceiptedPayment[] calldata payments) external;

    function claimOf(bytes32 id) external view returns (Claim memory);

    /// @notice Which claim the lock paid for this payment number, 0 if none.
    function paidOf(address agent, uint64 seq) external view returns (bytes32 id);

    function registry() external view returns (IMandateRegistry);

    function processors() external view returns (IProcessorRegistry);
}
