# What the Ruby gem `pusher` 2 sends, signed and sent with Ruby's own library: its sources are not needed for it.
# Usage: ruby replay.rb BASE KEY SECRET ID, where BASE is scheme, host, port and path; prints each answer's status and body
# on a line.

require 'digest'
require 'json'
require 'net/http'
require 'openssl'
require 'uri'

BASE, KEY, SECRET, ID = ARGV

def send_signed(verb, path, params = {}, body = nil)
  path = "/apps/#{ID}#{path}"
  params = params.transform_keys(&:to_s)
  params['body_md5'] = Digest::MD5.hexdigest(body) if body
  params = params.merge('auth_version' => '1.0', 'auth_key' => KEY, 'auth_timestamp' => Time.now.to_i.to_s)
  joined = params.sort.map { |name, value| "#{name}=#{value}" }.join('&')
  params['auth_signature'] = OpenSSL::HMAC.hexdigest('sha256', SECRET, [verb, path, joined].join("\n"))
  uri = URI("#{BASE}#{path}?#{URI.encode_www_form(params)}")
  request = Net::HTTP.const_get(verb.capitalize).new(uri)
  request['X-Pusher-Library'] = 'pusher-http-ruby 2.0.3'
  if body
    request['Content-Type'] = 'application/json'
    request.body = body
  end
  answer = Net::HTTP.start(uri.host, uri.port) { |http| http.request(request) }
  puts "#{answer.code} #{answer.body}"
end

# trigger: data that is no string is encoded
event = { name: 'App\\Events\\Ordered', channels: ['news'], data: JSON.generate({ text: 'Grüße/1' }) }
send_signed('POST', '/events', {}, JSON.generate(event))
# trigger_batch
batch = [{ channel: 'news', name: 'second', data: JSON.generate({ n: 2 }) }]
send_signed('POST', '/batch_events', {}, JSON.generate({ batch: batch }))
# channels and channel_info
send_signed('GET', '/channels', { filter_by_prefix: 'presence-', info: 'user_count' })
send_signed('GET', '/channels/news', { info: 'subscription_count' })
