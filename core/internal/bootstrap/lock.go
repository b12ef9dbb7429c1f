package bootstrap

import (
	"errors"
	"os"
	"time"
)

const (
	// lockWait bounds the wait for the lock. Who holds it copies for microseconds,
	// or waits for a disk; who is stopped in the middle must not stop others.
	lockWait = 2 * time.Second
	// lockPause is the first pause between two tries. Each is longer, up to
	// lockPauses times as long.
	lockPause  = 50 * time.Microsecond
	lockPauses = 100
)

// lock is an advisory lock between processes, and between several books of one. It
// is a file of its own beside the cache, because that one is replaced at times.
// The file stays when the lock is released.
//
// Nobody queues for it: who waits tries now and then. So whoever has had it leaves it to
// the others for as long, at most for the longest pause between two tries. Else one that
// writes without a pause, to a slow disk, would keep all others out.
type lock struct {
	path     string
	readOnly bool      // make no file
	file     *os.File  // nil before the first take
	taken    time.Time // when it was had
	left     time.Time // until when it is left to others
}

// take locks. Other errors than ErrBusy mean that this place knows no locks.
func (l *lock) take() error {
	time.Sleep(time.Until(l.left))
	deadline := time.Now().Add(lockWait)
	for pause := lockPause; ; pause = min(pause*2, lockPauses*lockPause) {
		taken, err := l.try()
		if taken || err != nil {
			l.taken = time.Now()
			return err
		}
		if !time.Now().Before(deadline) {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

// try locks when nobody else has. A lock file that was deleted, or replaced, is no
// lock any more.
func (l *lock) try() (bool, error) {
	if l.file == nil {
		flag := os.O_RDWR | os.O_CREATE
		if l.readOnly {
			flag = os.O_RDONLY
		}
		f, _, err := open(l.path, flag)
		if errors.Is(err, os.ErrPermission) || isReadOnly(err) { // to lock it, reading is enough
			if g, _, err2 := open(l.path, os.O_RDONLY); err2 == nil {
				f, err = g, nil
			}
		}
		if err != nil {
			return false, err
		}
		l.file = f
	}
	taken, err := tryLock(l.file)
	if !taken || err != nil {
		return false, err
	}
	now, err := os.Lstat(l.path)
	if mine, err2 := l.file.Stat(); err == nil && err2 == nil && os.SameFile(now, mine) {
		return true, nil
	}
	l.close() // and try once more with the one that is there now
	return false, nil
}

// release unlocks.
func (l *lock) release() {
	now := time.Now()
	l.left = now.Add(min(now.Sub(l.taken), lockPauses*lockPause))
	if l.file != nil && unlock(l.file) != nil {
		l.close() // which releases it, too
	}
}

func (l *lock) close() {
	if l.file != nil {
		l.file.Close() //nolint:errcheck // it holds no data
		l.file = nil
	}
}
