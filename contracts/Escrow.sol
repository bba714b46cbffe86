// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IERC20Metadata} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Metadata.sol";
import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {Credit} from "./interfaces/Batch.sol";
import {IEIP3009} from "./interfaces/IEIP3009.sol";
import {IEscrow} from "./interfaces/IEscrow.sol";

/// @title Escrow
contract Escrow is IEscrow, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @dev One slot: what settling must know of a token.
    struct RegisteredToken {
        address token;
        /// Base units in a unit, at most 10^18.
        uint64 unitScale;
    }

    uint256 private constant UNIT_DECIMALS = 6;
    uint256 private constant MAX_DECIMALS = 24;
    /// @dev What the addresses of sub-accounts begin with, so that they are known from others.
    uint256 private constant SUB_ACCOUNT = 0x737562;
    uint256 private constant SUB_ACCOUNT_BITS = 136;

    /// @inheritdoc IEscrow
    address public immutable registry;

    uint32 private _tokenCount;
    mapping(address token => uint32) private _tokenIds;
    mapping(uint32 tokenId => RegisteredToken) private _tokens;
    mapping(address token => uint256) private _locked;
    mapping(address token => mapping(address account => uint256)) private _free;
    /// @dev The credit plus one once a payee was ever paid: its slot never returns to zero, so that paying it again
    /// after a withdrawal costs 5,000 gas and not 22,100.
    mapping(address token => mapping(address payee => uint256)) private _creditsPlusOne;

    modifier onlyRegistry() {
        if (msg.sender != registry) revert OnlyRegistry(msg.sender, registry);
        _;
    }

    constructor(address registry_) {
        registry = registry_;
    }

    /// @inheritdoc IEscrow
    function registerToken(address token) public returns (uint32 tokenId) {
        tokenId = _tokenIds[token];
        if (tokenId != 0) return tokenId;
        uint256 decimals = _decimalsOf(token);
        if (decimals > MAX_DECIMALS) revert TooManyDecimals(token, decimals, MAX_DECIMALS);

        uint64 scale = decimals > UNIT_DECIMALS ? uint64(10 ** (decimals - UNIT_DECIMALS)) : 1;
        tokenId = ++_tokenCount;
        _tokenIds[token] = tokenId;
        _tokens[tokenId] = RegisteredToken(token, scale);
        emit TokenRegistered(tokenId, token, scale);
    }

    /// @inheritdoc IEscrow
    function deposit(address token, uint256 amount, address beneficiary) external nonReentrant returns (uint256) {
        return _depositFromCaller(token, amount, beneficiary);
    }

    /// @inheritdoc IEscrow
    function depositWithPermit(
        address token,
        uint256 amount,
        address beneficiary,
        uint256 deadline,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant returns (uint256) {
        registerToken(token);
        // A permit that fails leaves it to the allowance: somebody may have used the permit already.
        try IERC20Permit(token).permit(msg.sender, address(this), amount, deadline, v, r, s) {} catch {}
        return _depositFromCaller(token, amount, beneficiary);
    }

    /// @inheritdoc IEscrow
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
    ) external nonReentrant returns (uint256) {
        uint256 balance = _beforeDeposit(token, amount, from);
        IEIP3009(token).receiveWithAuthorization(from, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        return _creditDeposit(token, amount, from, from, balance);
    }

    /// @inheritdoc IEscrow
    function withdraw(address token, uint256 amount, address to) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        _requireRecipient(to);
        _takeFree(token, msg.sender, amount);
        emit Withdrawn(token, msg.sender, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// @inheritdoc IEscrow
    function withdrawCredit(address token, address to) external nonReentrant returns (uint256) {
        _requireRecipient(to);
        return _payCredit(token, msg.sender, to);
    }

    /// @inheritdoc IEscrow
    function sweepCredit(address token, address payee) external nonReentrant returns (uint256) {
        // Nobody has the key of one: what is sent to it as tokens is lost.
        if (uint160(payee) >> SUB_ACCOUNT_BITS == SUB_ACCOUNT) revert SubAccount(payee);
        return _payCredit(token, payee, payee);
    }

    /// @inheritdoc IEscrow
    function pay(address token, bytes32 salt, address to, uint256 amount) external {
        if (amount == 0) revert ZeroAmount();
        _requireRecipient(to);
        address account = accountOf(msg.sender, salt);
        uint256 free = _free[token][account];
        uint256 credit = creditOf(token, account);
        if (amount > free + credit) revert InsufficientBalance(token, account, amount, free + credit);

        uint256 fromFree = amount < free ? amount : free;
        _free[token][account] = free - fromFree;
        if (amount > fromFree) _creditsPlusOne[token][account] = credit - (amount - fromFree) + 1;
        _creditsPlusOne[token][to] = creditOf(token, to) + amount + 1;
        emit Paid(token, account, to, amount);
    }

    /// @inheritdoc IEscrow
    function lock(uint32 tokenId, address owner, uint256 units) external onlyRegistry {
        RegisteredToken memory registered = _tokens[tokenId];
        uint256 amount = units * registered.unitScale;
        _takeFree(registered.token, owner, amount);
        _locked[registered.token] += amount;
    }

    /// @inheritdoc IEscrow
    function release(uint32 tokenId, address owner, uint256 units) external onlyRegistry {
        RegisteredToken memory registered = _tokens[tokenId];
        uint256 amount = units * registered.unitScale;
        _locked[registered.token] -= amount;
        _free[registered.token][owner] += amount;
    }

    /// @inheritdoc IEscrow
    function settle(uint32 tokenId, uint256 debits, Credit[] calldata credits) external onlyRegistry returns (address) {
        RegisteredToken memory registered = _tokens[tokenId];
        mapping(address payee => uint256) storage creditsPlusOne = _creditsPlusOne[registered.token];
        uint256 scale = registered.unitScale;
        _locked[registered.token] -= debits * scale;

        uint256 sum = 0;
        for (uint256 i = 0; i < credits.length; ++i) {
            (address payee, uint256 units) = (credits[i].payee, credits[i].amount);
            sum += units;
            uint256 stored = creditsPlusOne[payee];
            creditsPlusOne[payee] = (stored == 0 ? 1 : stored) + units * scale;
        }
        if (sum != debits) revert CreditsDifferFromDebits(sum, debits);
        return registered.token;
    }

    /// @inheritdoc IEscrow
    function freeOf(address token, address account) external view returns (uint256) {
        return _free[token][account];
    }

    /// @inheritdoc IEscrow
    function creditOf(address token, address payee) public view returns (uint256) {
        uint256 stored = _creditsPlusOne[token][payee];
        return stored == 0 ? 0 : stored - 1;
    }

    /// @inheritdoc IEscrow
    function balanceOf(address token, address account) external view returns (uint256) {
        return _free[token][account] + creditOf(token, account);
    }

    /// @inheritdoc IEscrow
    function accountOf(address controller, bytes32 salt) public pure returns (address) {
        uint256 hash = uint256(keccak256(abi.encode(controller, salt)));
        return address(uint160((SUB_ACCOUNT << SUB_ACCOUNT_BITS) | (hash & (2 ** SUB_ACCOUNT_BITS - 1))));
    }

    /// @inheritdoc IEscrow
    function lockedOf(address token) external view returns (uint256) {
        return _locked[token];
    }

    /// @inheritdoc IEscrow
    function tokenIdOf(address token) external view returns (uint32) {
        return _tokenIds[token];
    }

    /// @inheritdoc IEscrow
    function tokenOf(uint32 tokenId) external view returns (address) {
        return _tokens[tokenId].token;
    }

    /// @inheritdoc IEscrow
    function unitScale(address token) external view returns (uint256) {
        uint32 tokenId = _tokenIds[token];
        if (tokenId == 0) revert TokenNotRegistered(token);
        return _tokens[tokenId].unitScale;
    }

    function _depositFromCaller(address token, uint256 amount, address beneficiary) private returns (uint256) {
        uint256 balance = _beforeDeposit(token, amount, beneficiary);
        IERC20(token).safeTransferFrom(msg.sender, address(this), amount);
        return _creditDeposit(token, amount, msg.sender, beneficiary, balance);
    }

    function _beforeDeposit(address token, uint256 amount, address beneficiary) private returns (uint256 balance) {
        if (amount == 0) revert ZeroAmount();
        if (beneficiary == address(0)) revert InvalidBeneficiary(beneficiary);
        registerToken(token);
        return IERC20(token).balanceOf(address(this));
    }

    /// @dev Credits what arrived since `balanceBefore`, which is less than `amount` for a token that takes a fee.
    function _creditDeposit(
        address token,
        uint256 amount,
        address from,
        address beneficiary,
        uint256 balanceBefore
    ) private returns (uint256 received) {
        uint256 balance = IERC20(token).balanceOf(address(this));
        if (balance <= balanceBefore) revert NothingReceived(token, amount);
        received = balance - balanceBefore;
        _free[token][beneficiary] += received;
        emit Deposited(token, beneficiary, from, received);
    }

    function _takeFree(address token, address account, uint256 amount) private {
        uint256 free = _free[token][account];
        if (amount > free) revert InsufficientFree(token, account, amount, free);
        _free[token][account] = free - amount;
    }

    function _payCredit(address token, address payee, address to) private returns (uint256 amount) {
        amount = creditOf(token, payee);
        if (amount == 0) revert NoCredit(token, payee);
        _creditsPlusOne[token][payee] = 1;
        emit CreditWithdrawn(token, payee, to, amount);
        IERC20(token).safeTransfer(to, amount);
    }

    /// @dev Tokens sent here without a deposit would belong to nobody.
    function _requireRecipient(address to) private view {
        if (to == address(0) || to == address(this)) revert InvalidRecipient(to);
    }

    function _decimalsOf(address token) private view returns (uint256) {
        (bool success, bytes memory answer) = token.staticcall(abi.encodeCall(IERC20Metadata.decimals, ()));
        if (!success || answer.length < 32) revert NotAToken(token);
        return abi.decode(answer, (uint256));
    }
}
