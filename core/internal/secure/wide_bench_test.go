package secure

import (
	"crypto/cipher"
	"fmt"
	"testing"
)

// BenchmarkWide seals and opens in place by each kernel of the machine, and by Go's
// own ciphers beside it: where the two meet is the kernel's bound from.
func BenchmarkWide(b *testing.B) {
	for _, c := range bothCiphers {
		k := kernelOf(c)
		if k == nil {
			continue
		}
		secret := [32]byte{1, 2, 3}
		own, err := k.plain(secret[:])
		if err != nil {
			b.Fatal(err)
		}
		whole := *k
		whole.from = 0
		for _, n := range []int{64, 128, 192, 256, 384, 512, 768, 1024, 1400, 4096, 16384, 65519} {
			for _, one := range []struct {
				name string
				aead cipher.AEAD
			}{{"kernel", widen(&whole, own, &secret)}, {"go", own}} {
				buf, nonce := make([]byte, n, n+tagSize), make([]byte, nonceSize)
				b.Run(fmt.Sprintf("%v/%s/seal/%d", c, one.name, n), func(b *testing.B) {
					b.SetBytes(int64(n))
					for b.Loop() {
						one.aead.Seal(buf[:0], nonce, buf, nil)
					}
				})
				sealed, out := one.aead.Seal(nil, nonce, buf, nil), make([]byte, n)
				b.Run(fmt.Sprintf("%v/%s/open/%d", c, one.name, n), func(b *testing.B) {
					b.SetBytes(int64(n))
					for b.Loop() {
						if _, err := one.aead.Open(out[:0], nonce, sealed, nil); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
