// Package bootstrap is the book of peers that were reached before: a file of one
// fixed size, mapped into memory and shared by every process that names it, which
// survives a crash at any byte.
//
//	page 0      the header
//	page 1      the same header again
//	first half  the first copy of each slot
//	second half the second copy of each slot
//
// A slot holds one peer, or nothing. Each of its two copies has a checksum and the
// number of its writing, and the valid copy with the greater number counts. A
// writer overwrites the other one. So a copy that was cut off, by a crash or by
// anything else, leaves the slot as it was before. A copy is overwritten only once
// the one that stays is on the disk (msync), so when the power fails, a slot is as it
// was after some change since the last flush, or as it was at that flush: the disk may
// have written the sectors of 512 bytes in any order, or lose the one that it was
// writing. The two copies are in different blocks of 4 KiB; a block that cannot be
// read any more costs the last change of four peers.
//
// Who reads or writes holds the lock of the file FILE.lock, for as long as it takes
// to copy: tens of microseconds for 200 peers, and the time of a disk's flush when
// the same peer is written twice. It is left to others for as long, up to 5 ms. Whoever
// died with the lock has released it.
//
// Memory that belongs to a file can fault at any access: another program may cut the
// file off, a disk may fail. Slots are copied out of the mapping and into it in
// one place, which turns a fault into an error (debug.SetPanicOnFault), and a file is
// looked at before each use. One that is no longer what was mapped is opened again;
// when that is of no use, the book goes on in memory.
//
// A file that cannot be used, because it is cut off, foreign, of a newer version or
// unreadable, is set aside: it gets the name FILE.bad-1, or the next one up to
// FILE.bad-8, and a new one is begun with every slot of it that is sound. Nobody's
// file is deleted or overwritten: when all those names are taken, or what is there is
// no regular file, or the disk is full or read-only, the book goes on in memory. Each
// such thing is a Warning. A file in which single slots are damaged is used as it is.
//
// The rules of what is kept:
//
//   - A peer comes in when it was reached, and only then.
//   - The order is that of the last times they were reached, as written down: it does
//     not depend on clocks.
//   - When all slots are taken, the place of the peer goes that was reached the
//     longest ago, first among those that failed at least 3 times in a row, and then
//     among all.
//   - A failure counts when it is the first in a row, or when 15 minutes, doubled
//     for each one more that has counted and at most 24 hours, have passed since the
//     one before, and some peer of the book has been reached since. So neither restarting often
//     nor a machine without a network wears the book out. The tenth in a row
//     removes the peer: not before it has failed for 79 hours.
//   - A peer that was last reached longer ago than Options.RetestAfter is due for a test,
//     and after failures as often as they count.
//
// Nothing here starts a goroutine or reads the clock, but for the bounded wait for
// the lock.
package bootstrap
