// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Credit} from "./Batch.sol";

/// @title Where the tokens are
/// @notice Holds each token in three parts: the free balance of accounts, what open mandates lock, and the credits of
/// payees. Deposits add to a free balance, opening a mandate moves its budget to the lock, settlement moves debits from
/// the lock to credits, closing a mandate moves the rest back. Tokens leave only by {withdraw}, {withdrawCredit} and
/// {sweepCredit}, each of which pays one account what is its own. Nobody can pause, freeze or re-route anything.
///
/// All amounts are in token base units unless a parameter says units; a unit is `unitScale(token)` base units.
/// A contract keeps money here in sub-accounts: addresses that follow from its own and a salt, which only it can {pay} from.
/// They are paid like any account, by deposits and credits; bonds, holds and deposits of other modules are such balances.
///
/// Rights never depend on the token balance of this contract, so tokens sent to it without a deposit belong to nobody.
/// A token whose balances change by themselves (rebasing) is not supported: its holders share its gains and losses in
/// the order in which they withdraw.
interface IEscrow {
    /// @notice `token` has the id `tokenId`, and one unit of it is `unitScale` base units, for ever.
    event TokenRegistered(uint32 indexed tokenId, address indexed token, uint256 unitScale);
    /// @notice `amount` arrived from `from` and is `beneficiary`'s free balance.
    event Deposited(address indexed token, address indexed beneficiary, address indexed from, uint256 amount);
    /// @notice `account` took `amount` of its free balance out to `to`.
    event Withdrawn(address indexed token, address indexed account, address indexed to, uint256 amount);
    /// @notice `payee`'s whole credit of `amount` was paid to `to`.
    event CreditWithdrawn(address indexed token, address indexed payee, address indexed to, uint256 amount);
    /// @notice The controller of the sub-account `from` gave `amount` of it to `to`, as credit.
    event Paid(address indexed token, address indexed from, address indexed to, uint256 amount);

    /// @notice The address holds no ERC-20 token that tells its decimals.
    error NotAToken(address token);
    error TooManyDecimals(address token, uint256 decimals, uint256 limit);
    error TokenNotRegistered(address token);
    error InvalidBeneficiary(address beneficiary);
    error InvalidRecipient(address to);
    error ZeroAmount();
    /// @notice The transfer of `amount` succeeded but nothing arrived.
    error NothingReceived(address token, uint256 amount);
    error InsufficientFree(address token, address account, uint256 amount, uint256 free);
    error NoCredit(address token, address payee);
    /// @notice Its money moves by {pay} alone.
    error SubAccount(address account);
    error InsufficientBalance(address token, address account, uint256 amount, uint256 balance);
    error OnlyRegistry(address caller, address registry);
    /// @notice The credits of a batch are not what its rows debit. In units.
    error CreditsDifferFromDebits(uint256 credits, uint256 debits);

    /// @notice Gives a token an id (1, 2, …) and fixes its unit at 10^max(0, decimals − 6) base units. Anyone may call
    /// it, and again: the same id comes back. Deposits do it for tokens that are new.
    /// @dev Reverts with {NotAToken} or {TooManyDecimals} (above 24).
    function registerToken(address token) external returns (uint32 tokenId);

    /// @notice Takes `amount` from the caller, which has approved it, into `beneficiary`'s free balance.
    /// @return received what arrived and was credited: less than `amount` for a token that takes a fee.
    function deposit(address token, uint256 amount, address beneficiary) external returns (uint256 received);

    /// @notice {deposit} with the caller's EIP-2612 permit. A permit that somebody else has used already is no error as
    /// long as the allowance stands.
    function depositWithPermit(
        address token,
        uint256 amount,
        address beneficiary,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (uint256 received);

    /// @notice Takes `amount` from `from` by its EIP-3009 authorization to this contract. Anyone may send it: the
    /// beneficiary is always `from`, so the nonce need not bind one and a front-runner only pays the gas.
    function depositWithAuthorization(
        address token,
        address from,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external returns (uint256 received);

    /// @notice Pays `amount` of the caller's free balance to `to`.
    function withdraw(address token, uint256 amount, address to) external;

    /// @notice Pays the caller's whole credit to `to`.
    function withdrawCredit(address token, address to) external returns (uint256 amount);

    /// @notice Pays `payee` its whole credit. Anyone may call it, but not for a sub-account.
    /// @dev One ordinary account in 16,777,216 looks like a sub-account: it calls {withdrawCredit}.
    function sweepCredit(address token, address payee) external returns (uint256 amount);

    /// @notice Moves `amount` from the caller's sub-account of `salt` to `to`'s credit: its free balance first, then its
    /// credit. Touches no token.
    function pay(address token, bytes32 salt, address to, uint256 amount) external;

    /// @notice Moves a mandate's budget from its owner's free balance to the lock. Only the registry.
    function lock(uint32 tokenId, address owner, uint256 units) external;

    /// @notice Moves what a closed mandate leaves from the lock to its owner's free balance. Only the registry.
    function release(uint32 tokenId, address owner, uint256 units) external;

    /// @notice Moves `debits` units from the lock to the payees of `credits`, which must sum up to it. Only the
    /// registry. Touches no token, so it works while the token is paused and whoever the token blocks.
    /// @return token whose credits they are.
    function settle(uint32 tokenId, uint256 debits, Credit[] calldata credits) external returns (address token);

    /// @notice The registry, the only contract that moves locked funds.
    function registry() external view returns (address);

    /// @notice What `account` can withdraw or lock.
    function freeOf(address token, address account) external view returns (uint256);

    /// @notice What settlements have paid `payee` and it has not taken out.
    function creditOf(address token, address payee) external view returns (uint256);

    /// @notice An account's free balance and credit together.
    function balanceOf(address token, address account) external view returns (uint256);

    /// @notice The sub-account of `salt` that only `controller` can pay from: the three bytes 0x737562 and the last
    /// seventeen of keccak256(abi.encode(controller, salt)).
    function accountOf(address controller, bytes32 salt) external pure returns (address);

    /// @notice What all open mandates lock.
    function lockedOf(address token) external view returns (uint256);

    /// @notice The token's id, 0 if it is not registered.
    function tokenIdOf(address token) external view returns (uint32);

    /// @notice The token with an id, the zero address if there is none.
    function tokenOf(uint32 tokenId) external view returns (address);

    /// @notice Base units in a unit of a registered token.
    function unitScale(address token) external view returns (uint256);
}
