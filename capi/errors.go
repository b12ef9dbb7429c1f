package main

// #include "shim_internal.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"
	"unsafe"

	crust "github.com/libcrust/libcrust/core"
)

// result turns the outcome of a call into a code. A failure leaves its text in
// why, the thread's room for crust_last_error.
func result(why *C.char, err error) C.int32_t {
	if err == nil {
		return C.CRUST_OK
	}
	code := crust.CodeOf(err)
	if code >= 0 {
		code = crust.CodeInternal
	}
	explain(why, err.Error())
	return C.int32_t(code)
}

// explain writes text into why, as much of it as fits in whole characters.
func explain(why *C.char, text string) {
	room := unsafe.Slice((*byte)(unsafe.Pointer(why)), C.CRUST__ERROR_SIZE)
	text = fit(text, len(room)-1)
	room[copy(room, text)] = 0
}

// fit cuts text to at most limit bytes without cutting a character, and makes it
// fit for a C string: valid UTF-8 without NUL, in one line.
func fit(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		switch r {
		case 0:
			return '\uFFFD'
		case '\n', '\r':
			return ' '
		}
		return r
	}, text)
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// failure makes an error of the C layer. op is the function of crust.h.
func failure(op string, code crust.Code, format string, args ...any) error {
	return &crust.Error{Op: op, Code: code, Err: fmt.Errorf(format, args...)}
}

// invalid marks an error about text or numbers that the caller gave, which core
// may return bare.
func invalid(op string, err error) error {
	var known *crust.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &crust.Error{Op: op, Code: crust.CodeInvalid, Err: err}
}

// guard is deferred first by every function that C calls. It turns a panic into
// CRUST_ERR_PANICKED and closes the service it happened in, if there was one.
func guard(handle C.uint64_t, why *C.char, rc *C.int32_t) {
	fault := recover()
	if fault == nil {
		return
	}
	text := describeFault(fault)
	explain(why, text)
	*rc = C.CRUST_ERR_PANICKED
	if s := services.get(uint64(handle)); s != nil {
		s.poison(text)
	}
}

// describeFault says what panicked and where. It is called while the panicking
// stack is still there.
func describeFault(fault any) string {
	text := fmt.Sprintf("fault inside libcrust: %v", fault)
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(2, pc)])
	inPanic := false
	for {
		frame, more := frames.Next()
		switch {
		case strings.HasPrefix(frame.Function, "runtime."):
			inPanic = inPanic || strings.Contains(frame.Function, "panic")
		case inPanic:
			return fmt.Sprintf("%s at %s:%d", text, frame.File[strings.LastIndexByte(frame.File, '/')+1:], frame.Line)
		}
		if !more {
			return text
		}
	}
}
