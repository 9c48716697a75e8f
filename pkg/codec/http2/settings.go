// SPDX-License-Identifier: Apache-2.0

package http2

import "encoding/binary"

// appendSettings appends what differs from the protocol's defaults, and the
// window of the connection.
func (c *Conn) appendSettings(dst []byte) []byte {
	at := len(dst)
	dst = appendFrame(dst, 0, frameSettings, 0, 0)
	l := &c.lim
	if c.role == Client {
		dst = appendSetting(dst, settingEnablePush, 0)
	} else {
		dst = appendSetting(dst, settingMaxConcurrentStreams, l.MaxConcurrentStreams)
		if l.AllowConnect {
			dst = appendSetting(dst, settingEnableConnect, 1)
		}
	}
	dst = appendSetting(dst, settingInitialWindow, l.InitialStreamWindow)
	if l.MaxFrameSize != DefaultMaxFrameSize {
		dst = appendSetting(dst, settingMaxFrameSize, l.MaxFrameSize)
	}
	if l.HeaderTableSize != 4096 {
		dst = appendSetting(dst, settingHeaderTableSize, l.HeaderTableSize)
	}
	dst = appendSetting(dst, settingMaxHeaderList, uint32(l.HeadBytes))
	putFrame(dst[at:], len(dst)-at-frameHeaderSize, frameSettings, 0, 0)
	if more := l.InitialConnWindow - defaultWindow; more > 0 {
		dst = appendWindowUpdate(dst, 0, more)
	}
	return dst
}

func (c *Conn) settings(f frame, payload []byte, sink Sink) error {
	if !c.budgets.settings.spend(c.now, 0, settingsRate, c.lim.Settings) {
		return c.fail(errSettings)
	}
	if f.has(flagAck) {
		c.acknowledged()
		return nil
	}
	window := c.peer.window
	for ; len(payload) >= 6; payload = payload[6:] {
		id, v := binary.BigEndian.Uint16(payload), binary.BigEndian.Uint32(payload[2:])
		if id == settingInitialWindow {
			window = int64(v) // the last of a frame counts: it moves every stream's window
		}
		if err := c.setting(id, v); err != nil {
			return err
		}
	}
	if err := c.setPeerWindow(window, sink); err != nil {
		return err
	}
	c.settled = true
	c.pending = appendFrame(c.pending, 0, frameSettings, flagAck, 0)
	return c.queued()
}

func (c *Conn) setting(id uint16, v uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.encoder.SetPeerMax(v)
	case settingEnablePush:
		if v > 1 || v == 1 && c.role == Client {
			return c.fail(errSettingPush)
		}
	case settingMaxConcurrentStreams:
		c.peer.maxStreams = v
	case settingInitialWindow:
		if v > maxWindow {
			return c.fail(errSettingWindow)
		}
	case settingMaxFrameSize:
		if v < DefaultMaxFrameSize || v > 1<<24-1 {
			return c.fail(errSettingFrameSize)
		}
		c.peer.frameSize = v
	case settingEnableConnect:
		if v > 1 || v == 0 && c.peer.connect {
			return c.fail(errSettingConnect)
		}
		c.peer.connect = v == 1
	case settingNoPriorities:
		if v > 1 {
			return c.fail(errSettingPriority)
		}
	}
	return nil // unknown settings are ignored, RFC 9113 §6.5.2
}

// acknowledged: from here on the peer goes by our settings.
func (c *Conn) acknowledged() {
	if c.acked {
		return
	}
	c.acked = true
	c.decoder.SetAllowed(c.lim.HeaderTableSize)
	delta := int64(c.lim.InitialStreamWindow) - c.recvInitial
	c.recvInitial += delta
	for _, s := range c.streams.slots {
		if s != nil && delta != 0 {
			s.recvWindow += delta
		}
	}
}
