// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IMandateRegistry} from "./IMandateRegistry.sol";

/// @title How single payments settle without a proof
/// @notice The direct rail, for clients that know nothing of ledgers: stock x402 `exact` clients (EIP-3009) and AEP2 v1
/// clients. The mandate's agent key signs one of two messages, and the mandate's processor submits it here. What it
/// pays counts in the mandate's `directSpent` against the same budget as the ledger, and never moves base, seq or
/// spent. Payment cap, payee list, budget and the end of the mandate are the registry's checks; this contract checks
/// who signed what, until when, and that it pays once.
///
/// Agents' signatures are 65 bytes, s in the lower half order, v 27 or 28, and never ERC-1271. This contract looks like
/// a token to a signer, and is none: it holds nothing, and has no balances and no allowances. Values in the messages
/// are in token base units, and must be whole units.
interface IDirectSettlement {
    /// @notice An EIP-3009 authorization, signed in the domain of its token ({domainSeparatorOf}).
    struct Transfer {
        /// The mandate's agent.
        address from;
        /// The payee.
        address to;
        /// Base units of the mandate's token.
        uint256 value;
        /// It pays after this second …
        uint256 validAfter;
        /// … and before this one.
        uint256 validBefore;
        bytes32 nonce;
        /// The agent's, over the six members above.
        bytes signature;
        /// The mandate's payee list, as its owner signed it. Not in the message.
        address[] payees;
    }

    /// @notice An AEP2 v1 mandate, which is one payment, signed in the domain of AEP2 ({debitDomainSeparator}).
    struct Debit {
        /// Whose money AEP2 takes it for; here the mandate's agent, which spends its own owner's.
        address owner;
        /// The mandate's token.
        address token;
        address payee;
        /// Base units.
        uint256 amount;
        uint256 nonce;
        /// The last second in which it pays.
        uint256 deadline;
        /// Binds what is bought.
        bytes32 ref;
        /// The agent's, over the seven members above.
        bytes signature;
        /// The mandate's payee list, as its owner signed it. Not in the message.
        address[] payees;
    }

    /// @notice A {Transfer} moved `units` of the agent's mandate to the payee's credit.
    event TransferSettled(address indexed agent, address indexed payee, bytes32 indexed nonce, uint64 units);
    /// @notice EIP-3009's own event: the nonce is used.
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    /// @notice A {Debit} moved `units` of the agent's mandate to the payee's credit.
    event DebitSettled(address indexed agent, address indexed payee, uint256 indexed nonce, uint64 units, bytes32 ref);

    error EmptySettlement();
    /// @notice No mandate was ever opened for the agent, so its transfers have no token.
    error NoMandate(address agent);
    error AuthorizationUsedAlready(address agent, bytes32 nonce);
    error AuthorizationNotYetValid(uint256 time, uint256 validAfter);
    error AuthorizationExpired(uint256 time, uint256 validBefore);
    error DebitUsedAlready(address agent, uint256 nonce);
    error DebitExpired(uint256 time, uint256 deadline);
    /// @notice A value that is no whole number of units of `unitScale` base units.
    error FractionalUnits(uint256 value, uint256 unitScale);

    /// @notice Settles EIP-3009 authorizations of the caller's mandates, in their order, all or nothing.
    /// @dev Reverts besides with the errors of {IMandateRegistry.payDirect} and, for a signature that is not the
    /// agent's over exactly this in this domain, `WrongSigner`.
    function transferWithAuthorizations(Transfer[] calldata transfers) external;

    /// @notice Settles AEP2 v1 mandates of the caller's mandates, in their order, all or nothing.
    /// @dev Reverts as {transferWithAuthorizations}.
    function debit(Debit[] calldata debits) external;

    /// @notice Whether the authorizer's EIP-3009 nonce is used; it is EIP-3009's function.
    function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);

    /// @notice Whether the agent's AEP2 nonce is used. The two forms do not share their nonces.
    function debitState(address agent, uint256 nonce) external view returns (bool);

    /// @notice The EIP-712 domain of transfers of a token: {eip712NameOf} the token, version "1", this chain, this
    /// contract. The message does not name its token, so its domain does.
    function domainSeparatorOf(address token) external view returns (bytes32);

    /// @notice "Bursar " and the token's address in its checksummed form: the `extra.name` of x402 payment terms whose
    /// `asset` is this contract.
    function eip712NameOf(address token) external pure returns (string memory);

    /// @notice The EIP-712 domain of debits: "AEP2DebitWallet", version "1", this chain, this contract.
    function debitDomainSeparator() external view returns (bytes32);

    function registry() external view returns (IMandateRegistry);
}
