# shellcheck shell=bash disable=SC2154
# ARM64 and ARMv7: what is built for them, run by QEMU's emulation of their processors on
# this machine's kernel. Sourced by run.sh.
#
# QEMU is ten times slower than a processor, so that what takes long of the unit tests is
# run by CRUST_PLATFORMS=all alone.

# What of the unit tests is run: the packages whose tests need no network but loopback,
# and of the core some that go through all its floors over an imitated network.
arm_packages=(core/identity core/internal/{endpoint,wire,secure,dial,arq,ban,guard,gossip,session,bootstrap,beacon,netio,udpmux}
    core/internal/nat/{observe,punch} core/internal/transport/{tcp,udp,utp} capi)
arm_core='TestConnectPeer|TestDatagrams|TestHello|TestMesh|TestRelay|TestResume'
arm_core_more='TestBanConnects|TestBootstrap|TestErrors|TestFullQueue|TestGossip|TestNATReport|TestPunch|TestSTUN|TestUDPMesh|TestUpgrade'

# What cannot be run so. The first start the test program once more, and this machine's
# kernel knows no such programs; the others need options of sockets that QEMU 7 does not
# know (IP_MINTTL, TCP_SAVED_SYN, SO_MEMINFO, SO_DETACH_FILTER).
arm_cannot=(TestWithoutKernels TestHazard01IdentifiersAreRandom TestWithoutPermission 'TestKilled.*'
    TestOpen TestOpenRefused TestOpenEnds TestOverflowsAreCounted TestSieveAtListeners TestSieveOfDatagrams)
# What takes a second or more there, and is left to CRUST_PLATFORMS=all.
arm_slow=(TestAMillionMutations TestAllArrives TestFair TestAPowerCutCostsNothingThatWasFlushed TestATornWriteIsNoWriteAtAll TestAllocations
    TestAmplification TestBothSendLarge TestBoundOfBytes 'TestBudget(AcrossBreaks|OfEvilPeers)' TestBytesArriveBothWays TestChangesCostLittle TestClockJumps TestCut TestCutAtEveryByte
    TestDatagramsLookRandom TestEclipse TestEveryNodeGetsToKnowEveryOther TestFlightLengthsOfDatagramsSpread TestFlood
    TestGoodput TestHow TestInsidersAgainstAService TestKinds TestLaterFlightsFlipped TestLetter 'TestLiars.*' TestLinks
    TestLoopback TestLostFrames TestMTU TestMTUComesBack TestMany TestMemoryComesBack TestMemoryIsBounded TestNetlink
    TestNewcomersGetThroughAFlood TestNextSequential TestNoAllocation TestNobodyGetsMoreThanItSent TestNoiseMessagesCutOrFlipped
    TestOldRecordsAfterTheChangeOfKey TestPacketsInAnyOrder TestPaid TestPair TestPartition TestPathNarrows
    TestQueueDrainsWhenTheRateFalls TestRandomCuts TestRateChanges TestRebind TestRekeyAtTheBoundary TestReordering TestRing
    TestScale TestSealAndOpenAllocateNothing TestSeenForgetsTheOldestOnly TestSendWait TestSilent 'TestStatesOf.*' TestStorm
    TestStrangers TestTCP TestTablesAreBounded TestTheRulesHold TestTooManyVersions TestTruncationAtEveryLength
    TestTurnInterruptAnyTime TestUDP TestUrgentLargeWithoutMemory TestVanished TestWhoWastesGetsLittle)

# arm_settings TARGET says how a target's compiler and emulator are called.
arm_settings() {
    case $1 in
    linux-arm64) triple=aarch64-linux-gnu emulator=qemu-aarch64 ;;
    linux-armv7) triple=arm-linux-gnueabihf emulator=qemu-arm ;;
    esac
    command -v "$emulator" >/dev/null || emulator+=-static
    emulate=("$emulator" -L "/usr/$triple")
}

# arm_go TARGET ARGUMENT... runs go test for a target, with the flags of the tool, so that
# what was compiled for that is not compiled again, and sums it up.
arm_go() {
    local target=$1
    shift
    CRUST_SODIUM=$build/sodium/$target/lib/libsodium.a capi/build-lib.sh --target "$target" --run "$build/$target" \
        go test -buildmode=pie -trimpath -tags netgo,osusergo -ldflags '-s -w' -vet=off -count=1 -timeout 30m \
        -exec "${emulate[*]}" -json "$@" | python3 .ci/gotest.py
}

# arm_units TARGET runs the unit tests and says how many.
arm_units() {
    local target=$1 skip=("${arm_cannot[@]}") log=$work/units.log
    [ "${CRUST_PLATFORMS:-}" = all ] || skip+=("${arm_slow[@]}")
    arm_go "$target" -skip "^($(IFS='|' && echo "${skip[*]}"))\$" "${arm_packages[@]/#/./}" | tee "$log" &&
        printf 'note: %s\n' "$(tail -n 1 "$log")"
}

# arm_core TARGET runs some of the tests of the core.
arm_core() {
    local tests=$arm_core log=$work/core.log
    [ "${CRUST_PLATFORMS:-}" != all ] || tests+="|$arm_core_more"
    arm_go "$1" -run "^($tests)\$" ./core | tee "$log" && printf 'note: %s\n' "$(tail -n 1 "$log")"
}

arm_driver() { driver "$1" "$triple-gcc" -L"$build/$1/lib" -lcrust -Wl,-rpath,"$build/$1/lib" -o "$build/$1/bin/driver"; }

run_arm() {
    local target=$1 triple emulator emulate
    arm_settings "$target"
    step "$target: the library and the tool" ./build.sh lib --target "$target"
    step "$target: unit tests" arm_units "$target"
    # To compile and link them takes half a minute for each target.
    if [ "$target" = linux-armv7 ] || [ "${CRUST_PLATFORMS:-}" = all ]; then
        step "$target: tests of the core" arm_core "$target"
    fi
    step "$target: the C ABI" abi "$target" "$triple-gcc" "${emulate[@]}"
    step "$target: a C program" arm_driver "$target"
    step "$target: the C program talks with this machine, over TCP and uTP" converse "$target ${emulate[*]} $build/$target/bin/driver"
    step "$target: the tool talks with this machine" peers "${emulate[@]}" "$build/$target/bin/crust"
}
