//go:build !linux

package tcp

// SetNotSentLowat bounds what the kernel takes beyond what it has sent, in
// bytes. Here the system has no such option and nothing is done.
func (c *Conn) SetNotSentLowat(bytes int) error { return nil }

// unfilter does nothing: nothing here has a filter.
func (c *Conn) unfilter() {}
