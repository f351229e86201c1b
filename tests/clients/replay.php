<?php
// What the PHP library `pusher/pusher-php-server` 7 sends, signed and sent with PHP's own functions: its sources are not
// needed for it. Usage: php replay.php BASE KEY SECRET ID, where BASE is scheme, host, port and path, as the library joins
// them; prints each answer's status and body on a line.

[, $base, $key, $secret, $id] = $argv;

/** As Guzzle resolves a relative path against its base. */
function resolved(string $base, string $path): string
{
    $from = strpos($base, '/', strlen('http://'));
    $root = $from === false ? $base : substr($base, 0, $from);
    $folder = $from === false ? '/' : substr($base, $from, strrpos($base, '/') - $from + 1);
    return $root . $folder . ltrim($path, '/');
}

function send(string $method, string $path, array $params = [], ?string $body = null): void
{
    global $base, $key, $secret, $id;
    $path = "/apps/$id$path";
    if ($body !== null) {
        $params['body_md5'] = md5($body);
    }
    $params = array_merge(['auth_key' => $key, 'auth_timestamp' => time(), 'auth_version' => '1.0'], $params);
    ksort($params);
    $joined = implode('&', array_map(fn ($name, $value) => "$name=$value", array_keys($params), $params));
    $params['auth_signature'] = hash_hmac('sha256', "$method\n$path\n$joined", $secret, false);
    ksort($params);
    $query = http_build_query($params, '', '&', PHP_QUERY_RFC3986);
    $options = ['method' => $method, 'ignore_errors' => true, 'header' => "Content-Type: application/json\r\nX-Pusher-Library: pusher-http-php 7.2"];
    if ($body !== null) {
        $options['content'] = $body;
    }
    $answer = file_get_contents(resolved($base, $path) . "?$query", false, stream_context_create(['http' => $options]));
    echo explode(' ', $http_response_header[0])[1], ' ', $answer, "\n";
}

// trigger(): data that is no string is encoded, and slashes are escaped twice over
$event = ['name' => 'App\\Events\\Ordered', 'data' => json_encode(['text' => 'Grüße/1']), 'channels' => ['news']];
send('POST', '/events', [], json_encode($event));
// triggerBatch()
$batch = [['channel' => 'news', 'name' => 'second', 'data' => json_encode(['n' => 2])]];
send('POST', '/batch_events', [], json_encode(['batch' => $batch]));
// getChannels() and getChannelInfo()
send('GET', '/channels', ['filter_by_prefix' => 'presence-', 'info' => 'user_count']);
send('GET', '/channels/news', ['info' => 'subscription_count']);
