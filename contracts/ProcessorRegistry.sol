// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {IEscrow} from "./interfaces/IEscrow.sol";
import {IMandateRegistry} from "./interfaces/IMandateRegistry.sol";
import {IProcessorRegistry} from "./interfaces/IProcessorRegistry.sol";

/// @title ProcessorRegistry
/// @dev Bonds are sub-accounts in the escrow: this contract holds no token, and nothing here calls one.
contract ProcessorRegistry is IProcessorRegistry {
    struct Victim {
        address payee;
        uint256 owed;
    }

    uint256 private constant FLOOR_UNITS = 10_000e6;
    uint256 private constant LEVERAGE = 10;
    uint256 private constant NEW_LEVERAGE = 3;
    uint256 private constant NEW_FOR = 30 days;
    uint256 private constant UNBONDING = 14 days;
    uint256 private constant VICTIM_WINDOW = 7 days;
    uint256 private constant REPORTER_SHARE = 20;
    uint256 private constant REPORTER_UNITS = 500e6;
    address private constant BURNED = 0x000000000000000000000000000000000000dEaD;

    /// @inheritdoc IProcessorRegistry
    IEscrow public immutable escrow;
    /// @inheritdoc IProcessorRegistry
    IMandateRegistry public immutable registry;
    address private immutable _claims;
    address private immutable _challenges;

    mapping(address processor => Processor) private _processors;
    /// @dev The last `settleBy` that a key can have promised.
    mapping(address processor => mapping(address key => uint256)) private _keyUntil;
    mapping(address processor => mapping(address token => uint256)) private _covered;
    mapping(address processor => mapping(address token => Slash)) private _slashes;
    mapping(address processor => mapping(address token => mapping(bytes32 id => Victim))) private _victims;
    mapping(bytes32 id => bool) private _wasVictim;

    modifier onlyRegistry() {
        if (msg.sender != address(registry)) revert OnlyRegistry(msg.sender, address(registry));
        _;
    }

    modifier onlyJudge() {
        if (!isJudge(msg.sender)) revert OnlyJudge(msg.sender);
        _;
    }

    modifier onlyRegistered() {
        if (_processors[msg.sender].registeredAt == 0) revert NotRegistered(msg.sender);
        _;
    }

    constructor(IEscrow escrow_, IMandateRegistry registry_, address claims, address challenges) {
        escrow = escrow_;
        registry = registry_;
        _claims = claims;
        _challenges = challenges;
    }

    /// @inheritdoc IProcessorRegistry
    function register(address receiptKey, string calldata uri) external {
        Processor storage processor = _processors[msg.sender];
        if (processor.registeredAt != 0) revert AlreadyRegistered(msg.sender);
        processor.registeredAt = uint40(block.timestamp);
        processor.uri = uri;
        _setKey(processor, receiptKey);
        emit ProcessorRegistered(msg.sender, receiptKey, uri);
    }

    /// @inheritdoc IProcessorRegistry
    function setUri(string calldata uri) external onlyRegistered {
        _processors[msg.sender].uri = uri;
        emit UriChanged(msg.sender, uri);
    }

    /// @inheritdoc IProcessorRegistry
    function rotateKey(address receiptKey) external onlyRegistered {
        Processor storage processor = _processors[msg.sender];
        address retired = processor.receiptKey;
        uint40 until = uint40(block.timestamp) + registry.windows().settleBy;
        _keyUntil[msg.sender][retired] = until;
        _setKey(processor, receiptKey);
        emit ReceiptKeyRotated(msg.sender, retired, receiptKey, until);
    }

    /// @inheritdoc IProcessorRegistry
    function requestUnbonding() external onlyRegistered {
        Processor storage processor = _processors[msg.sender];
        if (processor.unbondingAt != 0) revert Unbonding(msg.sender, processor.unbondingAt);
        processor.unbondingAt = uint40(block.timestamp);
        emit UnbondingRequested(msg.sender, uint40(withdrawableAt(msg.sender)));
    }

    /// @inheritdoc IProcessorRegistry
    function cancelUnbonding() external {
        if (_processors[msg.sender].unbondingAt == 0) revert NotUnbonding(msg.sender);
        _processors[msg.sender].unbondingAt = 0;
        emit UnbondingCancelled(msg.sender);
    }

    /// @inheritdoc IProcessorRegistry
    function withdrawBond(address token, address to) external returns (uint256 amount) {
        if (_processors[msg.sender].slashed) revert Slashed(msg.sender);
        uint256 until = withdrawableAt(msg.sender);
        if (until == 0) revert NotUnbonding(msg.sender);
        if (block.timestamp < until) revert BondStillCovers(msg.sender, block.timestamp, until);
        amount = bondOf(msg.sender, token);
        if (amount == 0) revert NoBond(msg.sender, token);

        emit BondWithdrawn(msg.sender, token, to, amount);
        escrow.pay(token, _salt(msg.sender), to, amount);
    }

    /// @inheritdoc IProcessorRegistry
    function cover(address processor, address token, uint256 units, uint40 claimsUntil) external onlyRegistry {
        Processor storage stored = _processors[processor];
        if (stored.registeredAt == 0) revert NotRegistered(processor);
        if (stored.slashed) revert Slashed(processor);
        if (stored.unbondingAt != 0) revert Unbonding(processor, stored.unbondingAt);
        uint256 unitScale = escrow.unitScale(token);
        uint256 bond = bondOf(processor, token);
        uint256 floor = FLOOR_UNITS * unitScale;
        if (bond < floor) revert BondBelowFloor(processor, token, bond, floor);
        uint256 covered = _covered[processor][token] + units * unitScale;
        uint256 limit = capacityOf(processor, token);
        if (covered > limit) revert LeverageExceeded(processor, token, covered, limit);

        _covered[processor][token] = covered;
        if (claimsUntil > stored.coversUntil) stored.coversUntil = claimsUntil;
    }

    /// @inheritdoc IProcessorRegistry
    function uncover(address processor, address token, uint256 units) external onlyRegistry {
        _covered[processor][token] -= units * escrow.unitScale(token);
    }

    /// @inheritdoc IProcessorRegistry
    function penalize(address processor, address token, address to, uint256 units) external onlyJudge {
        if (_processors[processor].slashed) return;
        uint256 amount = Math.min(units * escrow.unitScale(token), bondOf(processor, token));
        if (amount == 0) return;
        emit PenaltyPaid(processor, token, to, amount);
        escrow.pay(token, _salt(processor), to, amount);
    }

    /// @inheritdoc IProcessorRegistry
    function slash(address processor, address token, address reporter) external onlyJudge {
        Slash storage one = _slashes[processor][token];
        if (one.windowEndsAt != 0) return;
        _processors[processor].slashed = true;
        one.windowEndsAt = uint40(block.timestamp + VICTIM_WINDOW);
        one.reporter = reporter;
        emit BondSlashed(processor, token, reporter, bondOf(processor, token));
    }

    /// @inheritdoc IProcessorRegistry
    function addVictim(address processor, address token, bytes32 id, address payee, uint256 units) external onlyJudge {
        Slash storage one = _slashes[processor][token];
        if (_wasVictim[id] || block.timestamp >= one.windowEndsAt) return;
        uint256 owed = units * escrow.unitScale(token);
        _wasVictim[id] = true;
        _victims[processor][token][id] = Victim(payee, owed);
        one.owed += owed;
        emit VictimAdded(processor, token, id, payee, owed);
    }

    /// @inheritdoc IProcessorRegistry
    function payVictim(address processor, address token, bytes32 id) external returns (uint256 paid) {
        Slash storage one = _afterWindow(processor, token);
        Victim memory victim = _victims[processor][token][id];
        if (victim.owed == 0) revert NoVictim(id);
        paid = Math.mulDiv(victim.owed, Math.min(one.pot, one.owed), one.owed);
        delete _victims[processor][token][id];
        emit VictimPaid(processor, token, id, victim.payee, paid);
        if (paid != 0) escrow.pay(token, _salt(processor), victim.payee, paid);
    }

    /// @inheritdoc IProcessorRegistry
    function finishSlash(address processor, address token) external {
        Slash storage one = _afterWindow(processor, token);
        if (one.finished) revert SlashFinishedAlready(processor, token);
        one.finished = true;
        uint256 rest = one.pot - Math.min(one.pot, one.owed);
        uint256 reward = Math.min(rest / REPORTER_SHARE, REPORTER_UNITS * escrow.unitScale(token));
        emit SlashFinished(processor, token, reward, rest - reward);
        if (reward != 0) escrow.pay(token, _salt(processor), one.reporter, reward);
        if (rest != reward) escrow.pay(token, _salt(processor), BURNED, rest - reward);
    }

    /// @inheritdoc IProcessorRegistry
    function floorUnits() external pure returns (uint256) {
        return FLOOR_UNITS;
    }

    /// @inheritdoc IProcessorRegistry
    function coveredOf(address processor, address token) external view returns (uint256) {
        return _covered[processor][token];
    }

    /// @inheritdoc IProcessorRegistry
    function isReceiptKey(address processor, address key, uint256 settleBy) external view returns (bool) {
        return settleBy <= _keyUntil[processor][key] && _keyUntil[processor][key] != 0;
    }

    /// @inheritdoc IProcessorRegistry
    function processorOf(address processor) external view returns (Processor memory) {
        return _processors[processor];
    }

    /// @inheritdoc IProcessorRegistry
    function slashOf(address processor, address token) external view returns (Slash memory) {
        return _slashes[processor][token];
    }

    /// @inheritdoc IProcessorRegistry
    function withdrawableAt(address processor) public view returns (uint256) {
        Processor storage stored = _processors[processor];
        if (stored.unbondingAt == 0) return 0;
        uint256 covered = uint256(stored.coversUntil) + registry.windows().cure + VICTIM_WINDOW;
        return Math.max(stored.unbondingAt + UNBONDING, covered);
    }

    /// @inheritdoc IProcessorRegistry
    function capacityOf(address processor, address token) public view returns (uint256) {
        Processor storage stored = _processors[processor];
        bool recent = block.timestamp < stored.registeredAt + NEW_FOR;
        return bondOf(processor, token) * (recent ? NEW_LEVERAGE : LEVERAGE);
    }

    /// @inheritdoc IProcessorRegistry
    function bondOf(address processor, address token) public view returns (uint256) {
        return escrow.balanceOf(token, bondAccountOf(processor));
    }

    /// @inheritdoc IProcessorRegistry
    function bondAccountOf(address processor) public view returns (address) {
        return escrow.accountOf(address(this), _salt(processor));
    }

    /// @inheritdoc IProcessorRegistry
    function isJudge(address account) public view returns (bool) {
        return account == _claims || account == _challenges;
    }

    /// @dev A retired key never comes back: its receipts would be valid again.
    function _setKey(Processor storage processor, address receiptKey) private {
        if (receiptKey == address(0)) revert ZeroKey();
        if (_keyUntil[msg.sender][receiptKey] != 0) revert KeyUsed(receiptKey);
        _keyUntil[msg.sender][receiptKey] = type(uint256).max;
        processor.receiptKey = receiptKey;
    }

    /// @dev The pot is what is there at the first payment; whoever adds to it later adds to nothing.
    function _afterWindow(address processor, address token) private returns (Slash storage one) {
        one = _slashes[processor][token];
        if (one.windowEndsAt == 0) revert NotSlashed(processor, token);
        if (block.timestamp < one.windowEndsAt) {
            revert VictimsNotCounted(processor, block.timestamp, one.windowEndsAt);
        }
        if (one.pot == 0) one.pot = bondOf(processor, token);
    }

    function _salt(address processor) private pure returns (bytes32) {
        return bytes32(uint256(uint160(processor)));
    }
}
