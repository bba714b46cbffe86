// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IEscrow} from "./IEscrow.sol";
import {IMandateRegistry} from "./IMandateRegistry.sol";

/// @title Who processes, and the bond behind its receipts
/// @notice A processor registers its receipt key and where it serves, and posts a bond for each token in which it takes
/// mandates: a deposit to its sub-account in the escrow. The budgets of the mandates that name it are at most ten times
/// its bond, three times in its first 30 days. The bond pays penalties for receipts that it missed, and leaves only when
/// no receipt that it covers can be claimed or challenged any more.
///
/// A processor that contradicts itself, or leaves a receipt unpaid that the lock cannot pay, loses the whole bond in that
/// mandate's token: for seven days, or as long as a receipt of that moment can take to be missed, claimed and not cured
/// if that is longer, victims are registered, then they are paid, pro rata if it does not reach; of the rest the reporter
/// gets one part in twenty, at most 500 tokens, and everything else is burned. It takes no new mandate in any token. Its
/// bonds in other tokens answer for the mandates in these as before, and leave as any bond does. Amounts are in token base
/// units unless a parameter says units, times in Unix seconds.
interface IProcessorRegistry {
    struct Processor {
        /// 0 if it never registered.
        uint40 registeredAt;
        /// When it asked to leave, or 0.
        uint40 unbondingAt;
        /// The last second in which a claim on any mandate that names it may be filed.
        uint40 coversUntil;
        /// Whether its bond was slashed in any token: no new mandates.
        bool slashed;
        /// Who signs its receipts.
        address receiptKey;
        /// Where it serves: an https URL.
        string uri;
    }

    /// @notice A whole bond that was slashed.
    struct Slash {
        /// Until when victims are registered; 0 if the bond was never slashed.
        uint40 windowEndsAt;
        bool finished;
        address reporter;
        /// What the victims are owed.
        uint256 owed;
        /// What there was to share, fixed at the first payment.
        uint256 pot;
    }

    event ProcessorRegistered(address indexed processor, address receiptKey, string uri);
    event UriChanged(address indexed processor, string uri);
    /// @notice `retired` signs no receipt that promises settlement after `until`.
    event ReceiptKeyRotated(address indexed processor, address retired, address receiptKey, uint40 until);
    event UnbondingRequested(address indexed processor, uint40 withdrawableAt);
    event UnbondingCancelled(address indexed processor);
    event BondWithdrawn(address indexed processor, address indexed token, address indexed to, uint256 amount);
    event PenaltyPaid(address indexed processor, address indexed token, address indexed to, uint256 amount);
    event BondSlashed(address indexed processor, address indexed token, address indexed reporter, uint256 bond);
    event VictimAdded(
        address indexed processor,
        address indexed token,
        bytes32 indexed id,
        address payee,
        uint256 owed
    );
    event VictimPaid(address indexed processor, address indexed token, bytes32 indexed id, address payee, uint256 paid);
    event SlashFinished(address indexed processor, address indexed token, uint256 reward, uint256 burned);

    error OnlyRegistry(address caller, address registry);
    error OnlyJudge(address caller);
    error AlreadyRegistered(address processor);
    error NotRegistered(address processor);
    error ZeroKey();
    error KeyUsed(address key);
    /// @notice It asked to leave: no new mandates.
    error Unbonding(address processor, uint256 since);
    error NotUnbonding(address processor);
    /// @notice No new mandates, and what was slashed is not withdrawn.
    error Slashed(address processor);
    error BondBelowFloor(address processor, address token, uint256 bond, uint256 floor);
    /// @notice The mandates that name it would lock `locked` in all.
    error LeverageExceeded(address processor, address token, uint256 locked, uint256 limit);
    error BondStillCovers(address processor, uint256 time, uint256 until);
    error NoBond(address processor, address token);
    error NotSlashed(address processor, address token);
    error VictimsNotCounted(address processor, uint256 time, uint256 windowEndsAt);
    error NoVictim(bytes32 id);
    error SlashFinishedAlready(address processor, address token);

    /// @notice Registers the caller. @param receiptKey who signs its receipts: an EOA, possibly the caller.
    function register(address receiptKey, string calldata uri) external;

    function setUri(string calldata uri) external;

    /// @notice From now on `receiptKey` signs the caller's receipts. The retired key counts for what it can have promised:
    /// receipts that settle within the settle-by window from now.
    function rotateKey(address receiptKey) external;

    /// @notice Announces the caller's leaving: no new mandates from now on.
    function requestUnbonding() external;

    function cancelUnbonding() external;

    /// @notice Pays the caller's bond to `to`'s credit, once it covers nothing: 14 days after {requestUnbonding}, and
    /// one cure window and seven days after the last second in which a claim could be filed. A bond that was slashed never
    /// leaves by this.
    function withdrawBond(address token, address to) external returns (uint256 amount);

    /// @notice Counts a new mandate against the leverage cap. Only the registry.
    /// @param claimsUntil the last second in which a claim on it may be filed.
    function cover(address processor, address token, uint256 units, uint40 claimsUntil) external;

    /// @notice A mandate is closed: its budget no longer counts. Only the registry. Never reverts for it.
    function uncover(address processor, address token, uint256 units) external;

    /// @notice Pays a penalty from the bond in this token, as far as it reaches; nothing once that is slashed. Only the judges.
    function penalize(address processor, address token, address to, uint256 units) external;

    /// @notice Takes the whole bond in this token for its victims; again, it changes nothing. Only the judges.
    function slash(address processor, address token, address reporter) external;

    /// @notice Registers a victim of a slashed bond, unless its window is over. Only the judges. Once for each `id`.
    function addVictim(address processor, address token, bytes32 id, address payee, uint256 units) external;

    /// @notice Pays a victim its share once the window is over. Anyone may call it.
    function payVictim(address processor, address token, bytes32 id) external returns (uint256 paid);

    /// @notice Rewards the reporter and burns the rest once the window is over. Anyone may call it.
    function finishSlash(address processor, address token) external;

    /// @notice Deposits of a token to this account are the processor's bond in it.
    function bondAccountOf(address processor) external view returns (address);

    function bondOf(address processor, address token) external view returns (uint256);

    /// @notice The budgets of the open mandates that name the processor, in base units.
    function coveredOf(address processor, address token) external view returns (uint256);

    /// @notice What those budgets may be, with the bond as it is.
    function capacityOf(address processor, address token) external view returns (uint256);

    /// @notice Whether `key` signs for the processor a receipt that promises settlement by `settleBy`.
    function isReceiptKey(address processor, address key, uint256 settleBy) external view returns (bool);

    function processorOf(address processor) external view returns (Processor memory);

    function slashOf(address processor, address token) external view returns (Slash memory);

    /// @notice When {withdrawBond} will pay, 0 if the processor has not asked to leave.
    function withdrawableAt(address processor) external view returns (uint256);

    /// @notice The least bond, in units.
    function floorUnits() external view returns (uint256);

    function escrow() external view returns (IEscrow);

    function registry() external view returns (IMandateRegistry);

    /// @notice The contracts that may take from bonds: claims, and challenges.
    function isJudge(address account) external view returns (bool);
}
